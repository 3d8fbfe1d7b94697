"""A Gaussian filter over a data set: one tiled pass, which keeps inner products and no kernel.

For points x_i and values y_i the filter (arXiv 1901.06523) is the row-normalized kernel

    S_ij = K_ij / C_i,   K_ij = exp(-|x_i - x_j|^2 / (2 delta)),   C_i = sum_j K_ij,

with y_low = S y and y_high = y - S y. The kernel exists a few rows at a time, for all values at
once; what is kept for each delta are sums over the points, from which analysis/measures.py derives
its measures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from analysis.frequency_file import ALONE

# Half octaves over which a filtered CIFAR-10 test value goes from one point to n / 10 points, for
# its median squared distance; halves are exact, because they make the pass faster.
GRID, GRID_DISTANCE = (100, 141, 200, 282, 400, 564, 800, 1128, 1600), 8375
TILE_BYTES = 2**24  # of a kernel tile on a CPU: it is used many times, so it should fit the cache
SMALLEST_EXPONENT = -80.0  # below -87 float32 exp meets denormal numbers, at a tenth of its speed
SMALLEST_KERNEL_VALUE = 2e-35  # about exp(SMALLEST_EXPONENT)
SECONDS_BEFORE_PROGRESS = 2


@dataclass(frozen=True)
class FilterSums:
    """Sums over the n points, float64 on the CPU. V values, the first R of them references.

    All values are centered: y - mean over the points. The mean passes the filter unchanged, so
    y_low = S (y - mean) + mean, and y_high is that of the centered values.
    """

    count: int  # n
    mean: Tensor  # (V, C)
    total: Tensor  # (V,)        |y - mean|^2
    low: Tensor  # (R, V, D)     <S (y_r - mean_r), S (y_v - mean_v)>
    high: Tensor  # (R, V, D)    <y_r_high, y_v_high>
    low_self: Tensor  # (V, D)   |S (y - mean)|^2
    high_self: Tensor  # (V, D)  |y_high|^2
    low_high: Tensor  # (V, D)   <S (y - mean), y_high>
    low_sum: Tensor  # (V, C, D) sum over the points of S (y - mean)
    s_deficit: Tensor  # (D,)    n - |S|_F^2
    complement: Tensor  # (D,)   |I - S|_F^2
    kernel_mass: Tensor  # (D,)  median of C_i: how many points a filtered value is a mean of
    alone: Tensor  # (D,)        share of points with C_i under 3: mostly their own neighbors
    min_distance: float  # smallest |x_i - x_j|^2 of two points

    def select(self, rows: Sequence[int]) -> "FilterSums":
        """The same with these values only; the references stay."""
        first = {name: getattr(self, name)[rows] for name in ("mean", "total", "low_sum")}
        first |= {n: getattr(self, n)[rows] for n in ("low_self", "high_self", "low_high")}
        second = {name: getattr(self, name)[:, rows] for name in ("low", "high")}
        return replace(self, **first, **second)


def squared_distances(
    points: Tensor, norms: Tensor, rows: slice, out: Tensor | None = None
) -> Tensor:
    """|x_i - x_j|^2 of points (n, d), i in `rows`: float32 (t, n), written to `out` if given.

    norms: |x_i|^2 (n,).

    By matrix product; pairs so close that it would cancel are computed again by difference.
    """
    some, own = points[rows], norms[rows, None]
    distances = torch.addmm(norms, some, points.T, alpha=-2, out=out).add_(own).clamp_(min=0)
    close = (distances < 0.01 * (own + norms.max())).nonzero()
    for i, j in (pairs.T for pairs in close.split(4096)):
        distances[i, j] = (some[i] - points[j]).square().sum(1)
    return distances


def default_deltas(points: Tensor) -> list[float]:
    """GRID, scaled to the median squared distance of up to 2,000 of the points (n, d).

    The scale is a power of 2^(1/8), so that much the same data have the same deltas.
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


class _Accumulator:
    """Sums over the tiles of a pass, float64 on the device of the values."""

    def __init__(self, references: int, values: int, classes: int, deltas: int, device):
        shapes = {"low": (references, values), "high": (references, values)}
        shapes |= dict.fromkeys(("low_self", "high_self", "low_high"), (values,))
        shapes |= {"low_sum": (values, classes), "s_deficit": (), "complement": ()}
        self.references, self.values, self.classes = references, values, classes
        self.sums = {
            name: torch.zeros(*shape, deltas, dtype=torch.float64, device=device)
            for name, shape in shapes.items()
        }

    def flat(self, rows: Tensor) -> Tensor:
        """float32 (t, V C) -> float64 (V, t C): inner products then lose nothing to rounding."""
        columns = rows.view(len(rows), self.values, self.classes)
        return columns.transpose(0, 1).double().flatten(1)

    def add_low(self, index: int, low: Tensor) -> None:
        """Add the low part (V, t C) of a tile for the index-th delta."""
        self.sums["low"][..., index] += low[: self.references] @ low.T
        self.sums["low_self"][..., index] += torch.linalg.vecdot(low, low)
        self.sums["low_sum"][..., index] += low.view(self.values, -1, self.classes).sum(1)

    def add_high(self, index: int, high: Tensor, low: Tensor) -> None:
        """Add the high part (V, t C) of a tile, and its products with the low part."""
        self.sums["high"][..., index] += high[: self.references] @ high.T
        self.sums["high_self"][..., index] += torch.linalg.vecdot(high, high)
        self.sums["low_high"][..., index] += torch.linalg.vecdot(low, high)

    def add_kernel(self, index: int, others: Tensor, squares: Tensor, mass: Tensor) -> None:
        """Add a tile's share of |S|_F^2 and |I - S|_F^2.

        others, squares: (t, 1), the sums over j != i of K_ij and of K_ij^2; mass: C_i, float64.
        """
        s_deficit, complement = others * (2 + others) - squares, others.square() + squares
        self.sums["s_deficit"][index] += (s_deficit / mass.square()).sum()
        self.sums["complement"][index] += (complement / mass.square()).sum()


def filter_sums(
    points: Tensor,
    references: Tensor,
    outputs: Tensor,
    deltas: Sequence[float],
    tile_rows: int | None = None,
) -> FilterSums:
    """Filter references (R, n, C) and outputs (E, n, C) over points (n, d), for every delta (D).

    All float32 on one device; `points` is centered in place, which leaves the distances as they are
    and makes their rounding errors smaller. The values V = R + E share each tile of the kernel, of
    `tile_rows` rows (by default what fits the cache, or an eighth of a GPU's free memory).
    """
    (count, classes), device = references.shape[1:], points.device
    values = len(references) + len(outputs)
    columns = torch.empty(count, values, classes, device=device)
    torch.cat((references, outputs), out=columns.view(count, values, classes).transpose(0, 1))
    mean = columns.mean(0, dtype=torch.float64)  # (V, C)
    columns = columns.sub_(mean.float()).view(count, -1)  # (n, V C)
    points.sub_(points.mean(0))
    norms = points.square().sum(1)
    accumulator = _Accumulator(len(references), values, classes, len(deltas), device)
    kernel_mass = torch.empty(count, len(deltas))
    min_distance = math.inf
    rows = min(count, tile_rows or _tile_rows(points))
    # Made once: fresh memory for every tile would have to be mapped anew.
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
    total = accumulator.flat(columns).square().sum(1)
    return FilterSums(
        count=count,
        mean=mean.cpu(),
        total=total.cpu(),
        kernel_mass=kernel_mass.median(0).values.double(),
        alone=(kernel_mass < ALONE).double().mean(0),
        min_distance=min_distance,
        **{name: value.cpu() for name, value in accumulator.sums.items()},
    )


def _filter_tile(
    accumulator: _Accumulator,
    columns: Tensor,
    tile: slice,
    distances: Tensor,
    nearest: float,
    kernel: Tensor,
    deltas: Sequence[float],
    kernel_mass: Tensor,
) -> None:
    """Add the rows `tile` of the kernel of every delta to the sums.

    columns: (n, V C); distances: (t, n), the smallest of them `nearest`; kernel: (t, n), scratch;
    kernel_mass: (n, D), of which the rows `tile` are written.
    """
    own = columns[tile]  # (t, V C)
    for index, is_square in halving_chains(deltas):
        # Where no other point has any weight, the rows of S are those of the identity.
        if nearest > -2 * SMALLEST_EXPONENT * deltas[index]:
            others = squares = torch.zeros(len(own), 1, device=own.device)
            low = accumulator.flat(own)
        else:
            _next_kernel(kernel, distances, deltas[index], is_square)
            others = kernel.sum(1, keepdim=True)  # (t, 1)
            squares = torch.linalg.vector_norm(kernel, dim=1, keepdim=True).square()
            summed = kernel @ columns  # (t, V C)
            low = accumulator.flat((own + summed).div_(1 + others))
            # y - low would lose a small high part to rounding; this form does not.
            high = accumulator.flat((own * others).sub_(summed).div_(1 + others))
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


def _tile_rows(points: Tensor) -> int:
    size = TILE_BYTES
    if points.device.type == "cuda":
        size = torch.cuda.mem_get_info(points.device)[0] // 8
    return max(1, min(len(points), size // (4 * len(points))))
