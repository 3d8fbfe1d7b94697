"""A Gaussian filter over a data set: one tiled pass that keeps inner products but no kernel.

For points x_i and values y_i the filter (arXiv 1901.06523) is the row-normalized kernel

    S_ij = K_ij / C_i,   K_ij = exp(-|x_i - x_j|^2 / (2 delta)),   C_i = sum_j K_ij,

with y_low = S y and y_high = y - S y. The kernel exists a few rows at a time, for all values at
once. For each delta, the pass keeps sums over the points, from which measures/bands.py derives its
measures.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from measures import progress

# Half octaves over which a filtered CIFAR-10 test value goes from one point to n / 10 points, for
# its median squared distance; halves are exact, because they make the pass faster.
GRID, GRID_DISTANCE = (100, 141, 200, 282, 400, 564, 800, 1128, 1600), 8375
# Sources that have GRID itself: the shapes, which are drawn again for each seed, would otherwise
# fall on both sides of a rounding border.
GRID_SOURCES = ("cifar10", "cifar100", "shapes")
MEDIAN_POINTS = 2000  # among which the median distance is taken
TILE_BYTES = 2**24  # of a kernel tile on a CPU: it is used many times, so it should fit the cache
VALUE_BYTES = 2**27  # of a float64 copy of values; there are a few at a time
SMALLEST_EXPONENT = -80.0  # below -87 float32 exp meets denormal numbers, at a tenth of its speed
SMALLEST_KERNEL_VALUE = 2e-35  # about exp(SMALLEST_EXPONENT)


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
    low_sum: Tensor  # (V, C, D) sum over the points of S (y - mean)
    s_deficit: Tensor  # (D,)    n - |S|_F^2
    complement: Tensor  # (D,)   |I - S|_F^2
    kernel_mass: Tensor  # (D,)  median of C_i: how many points a filtered value averages


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


def median_distance(points: Tensor) -> float:
    """The median squared distance of up to MEDIAN_POINTS of the points (n, d), n at least 2."""
    some = points[:: math.ceil(len(points) / MEDIAN_POINTS)]
    above = torch.ones(len(some), len(some), dtype=torch.bool, device=points.device).triu(1)
    distances = squared_distances(some, some.square().sum(1), slice(None))
    return distances[above].median().item()


def default_deltas(source: str, points: Tensor) -> list[float]:
    """GRID for a source of GRID_SOURCES; otherwise GRID moved by whole half octaves to fit.

    points: (n, d). It then fits their median squared distance. All lists are parts of one endless
    series, so that two data sets share most of their deltas, and near ones all.
    """
    median = GRID_DISTANCE if source in GRID_SOURCES else median_distance(points)
    shift = round(2 * math.log2(median / GRID_DISTANCE)) if median else 0
    steps = range(shift, shift + len(GRID))
    return [float(GRID[step % 2]) * 2.0 ** (step // 2) for step in steps]


def halving_chains(deltas: Sequence[float]) -> list[tuple[int, bool]]:
    """An order of the deltas' indices in which each may follow its double, and whether it does.

    K(delta / 2) = K(delta)^2, and a square is much cheaper than an exponential.
    """
    # A number and its double have one mantissa.
    order = sorted(range(len(deltas)), key=lambda k: (math.frexp(deltas[k])[0], -deltas[k]))
    halves = [0, *(deltas[index] / 2 for index in order)]
    return [(index, deltas[index] == half) for index, half in zip(order, halves, strict=False)]


def filter_columns(
    points: Tensor, columns: Tensor, references: int, deltas: Sequence[float]
) -> FilterSums:
    """Filter values (n, V, C) over points (n, d), for every delta (D): one pass.

    columns: the values, the first `references` of them to compare all with. Both are float32 on
    one device and are centered in place, which keeps the points' distances and makes rounding
    errors smaller. All values share each tile of the kernel.
    """
    (count, values, classes), device = columns.shape, points.device
    mean = torch.cat([part.mean(0, dtype=torch.float64) for part in _parts(columns)])  # (V, C)
    columns.sub_(mean.float())
    points.sub_(points.mean(0))
    norms = points.square().sum(1)
    shapes = {"low": (references, values), "high": (references, values)}
    shapes |= dict.fromkeys(("low_self", "high_self"), (values,))
    shapes |= {"low_sum": (values, classes), "s_deficit": (), "complement": ()}
    sums = {
        name: torch.zeros(*shape, len(deltas), dtype=torch.float64, device=device)
        for name, shape in shapes.items()
    }
    kernel_mass = torch.empty(count, len(deltas))
    rows = _tile_rows(points, values * classes)
    # Allocated once: new memory for each tile would have to be mapped again.
    tile_distances, tile_kernel = torch.empty(2, rows, count, device=device)
    for start in progress(range(0, count, rows), "filtering"):
        tile = slice(start, start + rows)
        length = len(columns[tile])
        distances = squared_distances(points, norms, tile, tile_distances[:length])  # (t, n)
        diagonal = torch.arange(length, device=device)
        distances[diagonal, start + diagonal] = math.inf  # K_ii = 1 is added by hand
        kernel = tile_kernel[:length]
        _filter_tile(sums, columns, tile, distances, kernel, deltas, kernel_mass)
    return FilterSums(
        count=count,
        mean=mean.cpu(),
        total=torch.cat([flat(part).square_().sum(1) for part in _parts(columns)]).cpu(),
        kernel_mass=kernel_mass.median(0).values.double(),
        **{name: value.cpu() for name, value in sums.items()},
    )


def _parts(columns: Tensor) -> Sequence[Tensor]:
    """The values (n, V, C) a few at a time, for sums that copy them to float64."""
    count, values, classes = columns.shape
    at_once = max(2, VALUE_BYTES // (8 * count * classes))
    return columns.tensor_split(max(1, values // at_once), dim=1)


def _filter_tile(
    sums: dict[str, Tensor],
    columns: Tensor,
    tile: slice,
    distances: Tensor,
    kernel: Tensor,
    deltas: Sequence[float],
    kernel_mass: Tensor,
) -> None:
    """Add the rows `tile` of the kernel of every delta to the sums.

    columns: (n, V, C); distances: (t, n); kernel: (t, n), scratch; kernel_mass: (n, D), of which
    the rows `tile` are written.
    """
    own, nearest = columns[tile], distances.min().item()  # (t, V, C)
    references = len(sums["low"])
    for index, is_square in progress(halving_chains(deltas), "deltas of a tile"):
        at = {name: values[..., index] for name, values in sums.items()}
        # Where no other point has any weight, the rows of S are those of the identity.
        if nearest > -2 * SMALLEST_EXPONENT * deltas[index]:
            others = squares = torch.zeros(len(own), 1, device=own.device)
            low = flat(own)
        else:
            if is_square:  # it holds that of the double delta
                kernel.square_().clamp_(min=SMALLEST_KERNEL_VALUE)
            else:
                torch.mul(distances, -0.5 / deltas[index], out=kernel)
                kernel.clamp_(min=SMALLEST_EXPONENT).exp_()
            others = kernel.sum(1, keepdim=True)  # (t, 1)
            squares = torch.linalg.vector_norm(kernel, dim=1, keepdim=True).square()
            summed = (kernel @ columns.flatten(1)).view_as(own)  # (t, V, C)
            weight = others[..., None]
            low = flat((own + summed).div_(1 + weight))
            # y - low would lose a small high part to rounding; this form does not.
            high = flat((own * weight).sub_(summed).div_(1 + weight))
            at["high"] += high[:references] @ high.T
            at["high_self"] += torch.linalg.vecdot(high, high)
        at["low"] += low[:references] @ low.T
        at["low_self"] += torch.linalg.vecdot(low, low)
        at["low_sum"] += low.view(len(low), len(own), -1).sum(1)
        mass = (1 + others).double()
        at["s_deficit"] += ((others * (2 + others) - squares) / mass.square()).sum()
        at["complement"] += ((others.square() + squares) / mass.square()).sum()
        kernel_mass[tile, index] = mass[:, 0].float().cpu()


def _tile_rows(points: Tensor, columns: int) -> int:
    """Rows of a tile whose kernel and float64 values (`columns` per row) fit their budgets.

    On a GPU, each budget is an eighth of its free memory.
    """
    kernel, values = TILE_BYTES, VALUE_BYTES
    if points.device.type == "cuda":
        kernel = values = torch.cuda.mem_get_info(points.device)[0] // 8
    return max(1, min(len(points), kernel // (4 * len(points)), values // (8 * columns)))


def flat(rows: Tensor) -> Tensor:
    """float32 (t, V, C) -> float64 (V, t C): inner products then lose nothing to rounding."""
    exact = rows.transpose(0, 1).to(torch.float64, memory_format=torch.contiguous_format)
    return exact.flatten(1)
