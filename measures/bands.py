"""Measures by frequency band: frequency.json.

Norms are over all images and classes, Y are the clean labels, h the outputs. A measure has a value
for each delta; one of an empty band is NaN.

    delta_norm     |y_low| / (|y_low| + |y_high|), the original's README
    energy_share   |y_low|^2 / (|y_low|^2 + |y_high|^2), the original's code
    e_low, e_high  |Y_low - h_low| / |Y_low|, and high (arXiv 1901.06523): softmax, test images
    clean_low, transition_low, residual_low, clean_high, transition_high, residual_high
                   coefficients on the parts of the noisy labels (measures/parts.py) in a band:
                   softmax outputs and one-hot predictions, train sample

The sections `test` and `sample` also hold n, delta (D,), mass (D,): the median number of images
that a filtered value averages, and the two ratios of the clean labels, as they are (`labels`)
and `shuffled`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dataset.batches import normalize
from measures import RunArrays
from measures.gaussian import FilterSums, filter_columns
from measures.parts import (
    NEGLIGIBLE,
    PARTS,
    coefficients,
    one_hot,
    one_hot_predictions,
    split_labels,
)

OUTPUT_BYTES = 2**28  # of the logits that share a pass

Measure = Callable[[FilterSums], dict[str, np.ndarray]]  # by name, (V, D) float64 each


def measure_bands(
    run: RunArrays, deltas: Sequence[float], values: str, device: torch.device
) -> dict:
    """The content of frequency.json; values: softmax or logits."""
    classes = run.logits.shape[2]
    parts, dropped = split_labels(run.clean, run.noisy, classes, run.training_labels)
    noise = one_hot(run.noisy, classes) - parts["clean"]
    references = np.stack([parts["clean"], noise, parts["transition"]])
    true = one_hot(run.test_labels, classes)[None]
    of_test = of_sample = {values: [original_ratios]}
    if values == "softmax":
        of_parts = partial(band_coefficients, transition_dropped=dropped)
        of_test = {"softmax": [original_ratios, relative_errors]}
        of_sample = {"softmax": [original_ratios, of_parts], "one_hot": [of_parts]}
    test, sample = as_points(run.test_images, device), as_points(run.images, device)
    return {
        "values": values,
        "test": measure_section(test, true, run.test_logits, of_test, deltas),
        "sample": measure_section(sample, references, run.logits, of_sample, deltas),
    }


def measure_section(
    points: Tensor,
    references: np.ndarray,
    logits: np.ndarray,
    measures: dict[str, Sequence[Measure]],
    deltas: Sequence[float],
) -> dict:
    """A section of frequency.json.

    points: (n, d), centered in place; references: (R, n, C), the clean labels first; logits:
    (epochs, n, C); measures: of each kind of OUTPUTS.
    """
    blocks: dict[str, dict[str, list]] = {kind: {} for kind in measures}
    for sums, epochs in filter_outputs(points, references, logits, list(measures), deltas):
        start = len(references)
        for kind, of_kind in measures.items():
            for measure in of_kind:
                for name, values in measure(sums).items():
                    blocks[kind].setdefault(name, []).append(values[start : start + epochs])
            start += epochs
    outputs = {
        "one_hot" if kind == "one_hot" else "outputs": {
            name: np.concatenate(values) for name, values in found.items()
        }
        for kind, found in blocks.items()
    }
    return {
        "n": sums.count,
        "delta": np.array(deltas, float),
        "mass": sums.kernel_mass.numpy(),
        "shuffled": shuffled_ratios(sums),
        "labels": {"true": {name: values[0] for name, values in original_ratios(sums).items()}},
        **outputs,
    }


OUTPUTS = {
    "softmax": lambda logits: torch.from_numpy(logits).softmax(1),
    "logits": torch.from_numpy,
    "one_hot": lambda logits: torch.from_numpy(one_hot_predictions(logits)),
}


def filter_outputs(
    points: Tensor,
    references: np.ndarray,
    logits: np.ndarray,
    kinds: Sequence[str],
    deltas: Sequence[float],
) -> Iterator[tuple[FilterSums, int]]:
    """Filter the epochs in blocks: the sums of each pass, and the number of its epochs.

    The values of a pass are the references (R, n, C), then its epochs' outputs of each kind of
    OUTPUTS. A block has up to OUTPUT_BYTES of logits (epochs, n, C), so that memory does not grow
    with the epochs. Each computes the kernels again, which costs little beside its products.
    """
    shared, (count, classes) = len(references), logits.shape[1:]
    first = torch.from_numpy(references).float().to(points).transpose(0, 1)  # (n, R, C)
    size = min(len(logits), max(1, OUTPUT_BYTES // logits[0].nbytes))
    # Allocated once: the memory that the first block frees does not always fit the next block.
    room = first.new_empty(count * (shared + len(kinds) * size) * classes)
    for start in range(0, len(logits), size):
        block = logits[start : start + size]
        values = shared + len(kinds) * len(block)
        columns = room[: count * values * classes].view(count, values, classes)
        columns[:, :shared] = first
        for k, kind in enumerate(kinds):
            for e, epoch in enumerate(block):
                columns[:, shared + k * len(block) + e] = OUTPUTS[kind](np.array(epoch))
        yield filter_columns(points, columns, shared, deltas), len(block)


def as_points(images: np.ndarray, device: torch.device) -> Tensor:
    """uint8 (n, H, W, 3) -> float32 (n, 3 H W) in normalized pixels."""
    return normalize(torch.from_numpy(images).to(device)).flatten(1)


def original_ratios(sums: FilterSums) -> dict[str, np.ndarray]:
    """The original's two ratios, delta_norm and energy_share (V, D)."""
    return ratios(low_energy(sums), sums.high_self)


def low_energy(sums: FilterSums) -> Tensor:
    """|y_low|^2 (V, D), with the mean, which passes the filter unchanged."""
    cross = torch.einsum("vc,vcd->vd", sums.mean, sums.low_sum)
    return sums.low_self + 2 * cross + sums.count * sums.mean.square().sum(1, keepdim=True)


def ratios(low: Tensor, high: Tensor) -> dict[str, np.ndarray]:
    """delta_norm and energy_share of squared norms of one shape; 1 where both are zero."""
    both_zero = low + high == 0
    norm = low.sqrt() / (low.sqrt() + high.sqrt())
    share = low / (low + high)
    values = {"delta_norm": norm, "energy_share": share}
    return {name: value.where(~both_zero, 1).numpy() for name, value in values.items()}


def shuffled_ratios(sums: FilterSums) -> dict[str, np.ndarray]:
    """The original's two ratios (D,) of the first reference, expected if it is shuffled.

    Over permutations of centered y, |S y|^2 is |y|^2 (|S|_F^2 - 1) / (n - 1) on average.
    """
    mean_energy = sums.count * sums.mean[0].square().sum()
    low = sums.total[0] * (1 - sums.s_deficit / (sums.count - 1))
    high = sums.total[0] * sums.complement / (sums.count - 1)
    return ratios(low + mean_energy, high)


def relative_errors(sums: FilterSums) -> dict[str, np.ndarray]:
    """e_low and e_high (V, D) against the first reference; NaN where its band is empty."""
    mean, low_sum = sums.mean - sums.mean[:1], sums.low_sum - sums.low_sum[:1]
    low = sums.low_self - 2 * sums.low[0] + sums.low_self[0]
    low += 2 * torch.einsum("vc,vcd->vd", mean, low_sum)
    low += sums.count * mean.square().sum(1, keepdim=True)
    high = sums.high_self - 2 * sums.high[0] + sums.high_self[0]
    bands = {"e_low": (low, low_energy(sums)[0]), "e_high": (high, sums.high_self[0])}
    limit = NEGLIGIBLE * (bands["e_low"][1] + bands["e_high"][1])
    return {
        name: (error.clamp(min=0) / energy).sqrt().where(energy > limit, torch.nan).numpy()
        for name, (error, energy) in bands.items()
    }


# The parts Y, B and E in terms of the references of a pass over training images: Y, noise N and B,
# with E = N - B. Y and N are exact in float32.
PARTS_OF_REFERENCES = np.array([[1, 0, 0], [0, 0, 1], [0, 1, -1]], float)


def band_coefficients(sums: FilterSums, transition_dropped: bool) -> dict[str, np.ndarray]:
    """clean_low, transition_low, residual_low and the same of the high band (V, D).

    The references are Y, N and B. transition_dropped: B is collinear with Y and left out. NaN for a
    part that is dropped or empty in the band.
    """
    found = {}
    for band, products in (("low", sums.low), ("high", sums.high)):
        of_parts = np.einsum("pr,rvd->pvd", PARTS_OF_REFERENCES, products.numpy())
        gram = np.einsum("qr,prd->pqd", PARTS_OF_REFERENCES, of_parts[:, :3])
        values = coefficients(gram, of_parts, transition_dropped, float(sums.total[0]))
        found |= {f"{part}_{band}": value for part, value in zip(PARTS, values, strict=True)}
    return found
