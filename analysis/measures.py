"""Measures in the frequency domain, from the sums of one pass of the Gaussian filter.

Every measure takes FilterSums of V values (the first R of them references) at D deltas and returns
tensors (V, D) float64, by the measure's name in frequency.json: analysis/frequency_file.py defines
them.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from analysis import label_parts
from analysis.band_products import FilterSums
from analysis.label_parts import NEGLIGIBLE

Measure = Callable[[FilterSums], dict[str, Tensor]]


def low_energy(sums: FilterSums) -> Tensor:
    """|y_low|^2 (V, D), with the mean, which passes the filter unchanged."""
    cross = torch.einsum("vc,vcd->vd", sums.mean, sums.low_sum)
    return sums.low_self + 2 * cross + sums.count * sums.mean.square().sum(1, keepdim=True)


def ratios(low: Tensor, high: Tensor) -> dict[str, Tensor]:
    """delta_norm and energy_share of squared norms of one shape; 1 where both are zero."""
    both_zero = low + high == 0
    norm = low.sqrt() / (low.sqrt() + high.sqrt())
    share = low / (low + high)
    return {"delta_norm": norm.where(~both_zero, 1), "energy_share": share.where(~both_zero, 1)}


def null_ratio(sums: FilterSums) -> Tensor:
    """(|S|_F^2 - 1) / (n - 1) (D,): mean of |S y|^2 / |y|^2 over permutations of centered y."""
    return 1 - sums.s_deficit / (sums.count - 1)


def low_frequency_ratio(sums: FilterSums) -> dict[str, Tensor]:
    """lfr (LFR of arXiv 1901.06523 on centered values) and its excess over the null (V, D)."""
    total = sums.total[:, None]
    above = (2 * sums.low_high + sums.high_self) / total  # 1 - lfr, precise where that is small
    constant = (total == 0).expand_as(above)
    excess = 1 - above / (sums.s_deficit / (sums.count - 1))
    return {
        "lfr": (1 - above).where(~constant, 1),
        "excess": excess.where(sums.s_deficit > NEGLIGIBLE, 0).where(~constant, 1),
    }


def relative_errors(sums: FilterSums) -> dict[str, Tensor]:
    """e_low and e_high (V, D) against the first reference; NaN where its band is empty.

    Source: arXiv 1901.06523, the relative error of each band.
    """
    mean, low_sum = sums.mean - sums.mean[:1], sums.low_sum - sums.low_sum[:1]
    low = sums.low_self - 2 * sums.low[0] + sums.low_self[0]
    low += 2 * torch.einsum("vc,vcd->vd", mean, low_sum)
    low += sums.count * mean.square().sum(1, keepdim=True)
    high = sums.high_self - 2 * sums.high[0] + sums.high_self[0]
    bands = {"e_low": (low, low_energy(sums)[0]), "e_high": (high, sums.high_self[0])}
    limit = NEGLIGIBLE * (bands["e_low"][1] + bands["e_high"][1])
    return {
        name: (error.clamp(min=0) / energy).sqrt().where(energy > limit, torch.nan)
        for name, (error, energy) in bands.items()
    }


def centered_errors(sums: FilterSums) -> dict[str, Tensor]:
    """e_low_centered (V, D): e_low of values less their means, which constant outputs have at 1."""
    error = sums.low_self - 2 * sums.low[0] + sums.low_self[0]
    energy = sums.low_self[0]
    centered = (error.clamp(min=0) / energy).sqrt()
    return {"e_low_centered": centered.where(energy > NEGLIGIBLE * sums.total[0], torch.nan)}


def learned_shares(sums: FilterSums) -> dict[str, Tensor]:
    """How much of the clean labels and of the noise each value holds, by band (V, D).

    Least-squares coefficients within each band on references 0 (clean labels) and 1 (noise), which
    are not orthogonal. NaN where one of them is empty in the band.
    """
    shares, limit = {}, NEGLIGIBLE * sums.total[0]
    for band, products in (("low", sums.low), ("high", sums.high)):
        clean_products, noise_products = products[0], products[1]  # (V, D) each
        clean, cross, noise = clean_products[0], clean_products[1], noise_products[1]
        exists = noise > limit
        noise, cross = noise.where(exists, 1), cross.where(exists, 0)
        determinant = clean * noise - cross.square()
        solvable = (clean > limit) & (determinant > 1e-12 * clean * noise)
        share = (noise * clean_products - cross * noise_products) / determinant
        shares[f"learned_true_{band}"] = share.where(solvable, torch.nan)
        share = (clean * noise_products - cross * clean_products) / determinant
        shares[f"learned_noise_{band}"] = share.where(solvable & exists, torch.nan)
    return shares


# The parts of noisy labels (analysis/label_parts.py) in terms of the references of a pass over
# training images: clean labels Y, noise N = noisy - clean, transition part B; E = N - B.
PARTS_OF_REFERENCES = torch.tensor([[1, 0, 0], [0, 0, 1], [0, 1, -1]], dtype=torch.float64)


def part_shares(sums: FilterSums, transition_dropped: bool) -> dict[str, Tensor]:
    """clean_low, transition_low, individual_low and the same of the high band (V, D).

    How much of each part of the noisy labels a value has learned, within a band: least-squares
    coefficients (label_parts.learned_shares). The references are Y, N and B. transition_dropped: B
    is collinear with Y and left out. NaN for a part that is dropped or empty in the band.
    """
    shares = {}
    for band, products in (("low", sums.low), ("high", sums.high)):
        part_products = torch.einsum("pr,rvd->pvd", PARTS_OF_REFERENCES, products)
        gram = torch.einsum("qr,prd->pqd", PARTS_OF_REFERENCES, part_products[:, :3])
        values = label_parts.learned_shares(
            gram.numpy(), part_products.numpy(), transition_dropped, float(sums.total[0])
        )
        for part, share in zip(label_parts.PARTS, values, strict=True):
            shares[f"{part}_{band}"] = torch.from_numpy(share)
    return shares


def original_ratios(sums: FilterSums) -> dict[str, Tensor]:
    """The original's two ratios, delta_norm and energy_share (V, D)."""
    return ratios(low_energy(sums), sums.high_self)


# Measured for the labels and for the outputs.
LABEL_MEASURES: tuple[Measure, ...] = (original_ratios, low_frequency_ratio)


def shuffled_ratios(sums: FilterSums) -> dict[str, Tensor]:
    """The original's two ratios (D,) expected for the first reference, shuffled."""
    mean_energy = sums.count * sums.mean[0].square().sum()
    high = sums.total[0] * sums.complement / (sums.count - 1)
    return ratios(sums.total[0] * null_ratio(sums) + mean_energy, high)


def measure(sums: FilterSums, measures: Sequence[Measure]) -> dict[str, Tensor]:
    """All of the measures, by name: (V, D) each."""
    return {name: values for one in measures for name, values in one(sums).items()}


def as_lists(values: Tensor) -> list:
    """Nested lists of numbers, None for NaN."""
    return np.where(values.isnan(), None, values.numpy()).tolist()


def as_rows(values: dict[str, Tensor], rows: int | slice) -> dict[str, list]:
    """Some of the V values of measures (V, D), as nested lists by the measure's name."""
    return {name: as_lists(all_values[rows]) for name, all_values in values.items()}
