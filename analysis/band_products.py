"""What a pass of the Gaussian filter keeps: sums over the points, added up tile by tile."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor


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
    alone: Tensor  # (D,)        share of points with C_i below 3: mostly their own neighbors
    min_distance: float  # smallest |x_i - x_j|^2 of two points

    def select(self, rows: Sequence[int]) -> "FilterSums":
        """The sums of these values only; the references stay."""
        index = torch.tensor(rows)
        chosen = {n: getattr(self, n).index_select(axis, index) for n, axis in VALUE_AXIS.items()}
        return replace(self, **chosen)


VALUE_AXIS = dict.fromkeys(("mean", "total", "low_self", "high_self", "low_high", "low_sum"), 0)
VALUE_AXIS |= {"low": 1, "high": 1}


def join(passes: Sequence[FilterSums], shared: int) -> FilterSums:
    """The sums of one pass over all values, from passes over the same points.

    shared: how many values every pass begins with, the references among them; they are kept once.
    """
    first, *others = passes
    rest = [sums.select(range(shared, len(sums.total))) for sums in others]
    values = {
        name: torch.cat([getattr(sums, name) for sums in (first, *rest)], axis)
        for name, axis in VALUE_AXIS.items()
    }
    return replace(first, **values)


class Accumulator:
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


def flat(rows: Tensor) -> Tensor:
    """float32 (t, V, C) -> float64 (V, t C): inner products then lose nothing to rounding."""
    exact = rows.transpose(0, 1).to(torch.float64, memory_format=torch.contiguous_format)
    return exact.flatten(1)
