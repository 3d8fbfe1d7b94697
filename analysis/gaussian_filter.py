"""A Gaussian filter over a data set: one tiled pass that keeps inner products but no kernel.

For points x_i and values y_i the filter (arXiv 1901.06523) is the row-normalized kernel

    S_ij = K_ij / C_i,   K_ij = exp(-|x_i - x_j|^2 / (2 delta)),   C_i = sum_j K_ij,

with y_low = S y and y_high = y - S y. The kernel exists a few rows at a time, for all values at
once. For each delta, the pass keeps sums over the points, from which analysis/measures.py derives
its measures.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from tqdm import tqdm

from analysis.band_products import Accumulator, FilterSums, flat
from analysis.frequency_file import ALONE

# Half octaves over which a filtered CIFAR-10 test value goes from one point to n / 10 points, for
# its median squared distance; halves are exact, because they make the pass faster.
GRID, GRID_DISTANCE = (100, 141, 200, 282, 400, 564, 800, 1128, 1600), 8375
TILE_BYTES = 2**24  # of a kernel tile on a CPU: it is used many times, so it should fit the cache
VALUE_BYTES = 2**27  # of a float64 copy of values; there are a few at a time
SMALLEST_EXPONENT = -80.0  # below -87 float32 exp meets denormal numbers, at a tenth of its speed
SMALLEST_KERNEL_VALUE = 2e-35  # about exp(SMALLEST_EXPONENT)
SECONDS_BEFORE_PROGRESS = 2


@contextmanager
def true_float32() -> Iterator[None]:
    """Multiply float32 matrices without TF32 or bfloat16; restores the setting at the end.

    With TF32 `excess` would be wrong by up to 1e-4.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def squared_distances(
    points: Tensor, norms: Tensor, rows: slice, out: Tensor | None = None
) -> Tensor:
    """|x_i - x_j|^2 of points (n, d), i in `rows`: float32 (t, n), written to `out` if given.

    norms: |x_i|^2 (n,). Computed by a matrix product; pairs so close that it would cancel are
    computed again by difference.
    """
    some, own = points[rows], norms[rows, None]
    distances = torch.addmm(norms, some, points.T, alpha=-2, out=out).add_(own).clamp_(min=0)
    close = (distances < 0.01 * (own + norms.max())).nonzero()
    for i, j in (pairs.T for pairs in close.split(4096)):
        distances[i, j] = (some[i] - points[j]).square().sum(1)
    return distances


@true_float32()
def default_deltas(points: Tensor) -> list[float]:
    """GRID, scaled to the median squared distance of up to 2,000 of the points (n, d).

    The scale is a power of 2^(1/8), so that similar data have the same deltas.
    """
    some = points[:: math.ceil(len(points) / 2000)]
    above = torch.ones(len(some), len(some), dtype=torch.bool, device=points.device).triu(1)
    distances = squared_distances(some, some.square().sum(1), slice(None))
    median = distances[above].median().item()
    scale = 2 ** (round(8 * math.log2(median / GRID_DISTANCE)) / 8) if median else 1
    first, second = (float(f"{scale * start:.3g}") for start in GRID[:2])
    return [(first, second)[k % 2] * 2 ** (k // 2) for k in range(len(GRID))]


def halving_chains(deltas: Sequence[float]) -> list[tuple[int, bool]]:
    """An order of the deltas' indices in which each may follow its double, and whether it does.

    K(delta / 2) = K(delta)^2, and a square is much cheaper than an exponential.
    """
    order, left = [], sorted(range(len(deltas)), key=lambda index: -deltas[index])
    while left:
        index, is_square = left[0], False
        while index is not None:
            left.remove(index)
            order.append((index, is_square))
            half, is_square = deltas[index] / 2, True
            index = next((i for i in left if deltas[i] == half), None)
    return order


def filter_sums(
    points: Tensor,
    references: Tensor,
    outputs: Tensor,
    deltas: Sequence[float],
    tile_rows: int | None = None,
) -> FilterSums:
    """Filter references (R, n, C) and outputs (E, n, C): filter_columns of a copy of both."""
    (count, classes), values = references.shape[1:], len(references) + len(outputs)
    columns = torch.empty(count, values, classes, device=points.device)
    torch.cat((references, outputs), out=columns.transpose(0, 1))
    return filter_columns(points, columns, len(references), deltas, tile_rows)


@true_float32()
def filter_columns(
    points: Tensor,
    columns: Tensor,
    references: int,
    deltas: Sequence[float],
    tile_rows: int | None = None,
) -> FilterSums:
    """Filter values (n, V, C) over points (n, d), for every delta (D): one pass.

    columns: the values, the first `references` of them to compare all with. Both are float32 on
    one device and are centered in place, which keeps the points' distances and makes rounding
    errors smaller. All values share each tile of the kernel, of `tile_rows` rows (by default those
    of _tile_rows).
    """
    (count, values, classes), device = columns.shape, points.device
    mean = torch.cat([part.mean(0, dtype=torch.float64) for part in _parts(columns)])  # (V, C)
    columns.sub_(mean.float())
    points.sub_(points.mean(0))
    norms = points.square().sum(1)
    accumulator = Accumulator(references, values, classes, len(deltas), device)
    kernel_mass = torch.empty(count, len(deltas))
    min_distance = math.inf
    rows = min(count, tile_rows or _tile_rows(points, values * classes))
    # Allocated once: new memory for each tile would have to be mapped again.
    tile_distances, tile_kernel = torch.empty(2, rows, count, device=device)
    starts = range(0, count, rows)
    for start in tqdm(starts, "tiles", leave=False, disable=None, delay=SECONDS_BEFORE_PROGRESS):
        tile = slice(start, start + rows)
        length = len(columns[tile])
        distances = squared_distances(points, norms, tile, tile_distances[:length])  # (t, n)
        diagonal = torch.arange(length, device=device)
        distances[diagonal, start + diagonal] = math.inf  # K_ii = 1 is added by hand
        nearest = distances.min().item()
        min_distance = min(min_distance, nearest)
        kernel = tile_kernel[:length]
        _filter_tile(accumulator, columns, tile, distances, nearest, kernel, deltas, kernel_mass)
    return FilterSums(
        count=count,
        mean=mean.cpu(),
        total=torch.cat([flat(part).square_().sum(1) for part in _parts(columns)]).cpu(),
        kernel_mass=kernel_mass.median(0).values.double(),
        alone=(kernel_mass < ALONE).double().mean(0),
        min_distance=min_distance,
        **{name: value.cpu() for name, value in accumulator.sums.items()},
    )


def _parts(columns: Tensor) -> Sequence[Tensor]:
    """The values (n, V, C) a few at a time, for sums that copy them to float64."""
    count, values, classes = columns.shape
    at_once = max(2, VALUE_BYTES // (8 * count * classes))
    return columns.tensor_split(max(1, values // at_once), dim=1)


def _filter_tile(
    accumulator: Accumulator,
    columns: Tensor,
    tile: slice,
    distances: Tensor,
    nearest: float,
    kernel: Tensor,
    deltas: Sequence[float],
    kernel_mass: Tensor,
) -> None:
    """Add the rows `tile` of the kernel of every delta to the sums.

    columns: (n, V, C); distances: (t, n), the smallest of them `nearest`; kernel: (t, n), scratch;
    kernel_mass: (n, D), of which the rows `tile` are written.
    """
    own = columns[tile]  # (t, V, C)
    for index, is_square in halving_chains(deltas):
        # Where no other point has any weight, the rows of S are those of the identity.
        if nearest > -2 * SMALLEST_EXPONENT * deltas[index]:
            others = squares = torch.zeros(len(own), 1, device=own.device)
            low = flat(own)
        else:
            _next_kernel(kernel, distances, deltas[index], is_square)
            others = kernel.sum(1, keepdim=True)  # (t, 1)
            squares = torch.linalg.vector_norm(kernel, dim=1, keepdim=True).square()
            summed = (kernel @ columns.flatten(1)).view_as(own)  # (t, V, C)
            weight = others[..., None]
            low = flat((own + summed).div_(1 + weight))
            # y - low would lose a small high part to rounding; this form does not.
            high = flat((own * weight).sub_(summed).div_(1 + weight))
            accumulator.add_high(index, high, low)
        accumulator.add_low(index, low)
        mass = (1 + others).double()
        accumulator.add_kernel(index, others, squares, mass)
        kernel_mass[tile, index] = mass[:, 0].float().cpu()


def _next_kernel(kernel: Tensor, distances: Tensor, delta: float, is_square: bool) -> None:
    """Fill `kernel`, which holds K(2 delta) if `is_square`, with K(delta)."""
    if is_square:
        kernel.square_().clamp_(min=SMALLEST_KERNEL_VALUE)
    else:
        torch.mul(distances, -0.5 / delta, out=kernel)
        kernel.clamp_(min=SMALLEST_EXPONENT).exp_()


def _tile_rows(points: Tensor, columns: int) -> int:
    """Rows of a tile whose kernel and float64 values (`columns` per row) fit their budgets.

    On a GPU, each budget is an eighth of its free memory.
    """
    kernel, values = TILE_BYTES, VALUE_BYTES
    if points.device.type == "cuda":
        kernel = values = torch.cuda.mem_get_info(points.device)[0] // 8
    return max(1, min(len(points), kernel // (4 * len(points)), values // (8 * columns)))
