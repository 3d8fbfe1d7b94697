"""The quantities of the answer that compare a distilled run with its equivalent epoch.

The equivalent epoch (equivalent_epoch.py) is the epoch of the cross-entropy run of the same draw
whose profile of individual noise, along the eigenvectors of SPECTRUM_KERNEL, is nearest to that of
distillation's last epoch. Runs are those of history.json. Accuracies and gaps are percent points,
shares are learned shares (label_parts.py), epochs count from 1.
"""

from collections.abc import Callable

import numpy as np

from analysis.run_comparison import compare_entries
from analysis.spectrum_file import as_array

SPECTRUM_KERNEL = ("gaussian", 1600.0)  # its name, and delta in squared normalized-pixel units


def spectrum_entry(run: dict) -> dict | None:
    """The run's entry of spectrum.json for SPECTRUM_KERNEL; None if there is none."""
    entries = (run.get("spectrum") or {"kernels": []})["kernels"]
    return next((e for e in entries if (e["kernel"], e["delta"]) == SPECTRUM_KERNEL), None)


def like_epoch(distilled: dict, plain: dict, values: str = "softmax") -> dict[str, float] | None:
    """Compare distillation's last epoch with the equivalent epoch, by the names of the quantities.

    values: "softmax" outputs or "one_hot" predictions. None where a run has no spectrum.json with
    this kernel.
    """
    entries = [spectrum_entry(run) for run in (distilled, plain)]
    if None in entries:
        return None
    path, excess = compare_entries(*entries, values)
    nearest = int(path.nearest[-1])
    accuracy, reference = (run["history"]["test_accuracy"] for run in (distilled, plain))
    gap, reference_gap = (run["memorization"]["curves"]["gap"] for run in (distilled, plain))
    energy = as_array(entries[0]["energies"]["clean"])
    fraction, reference_fraction = (
        index_dependent_fraction(entry, values, epoch)
        for entry, epoch in zip(entries, (-1, nearest), strict=True)
    )
    return {
        "epoch": nearest + 1,
        "distance": float(path.distance[-1]),
        "distance by level": float(path.distance_by_level[-1]),
        "epoch by level": int(path.by_level[-1]) + 1,
        "step": float(path.resolution[-1]),
        "shape beyond step": float(path.shape_distance[-1] - path.shape_resolution[-1]),
        "excess": float(np.nansum(excess[-1] * energy)),
        "fraction": fraction,
        "fraction beyond": fraction - reference_fraction,
        "accuracy": accuracy[-1] - reference[nearest],
        "gap": gap[-1] - reference_gap[nearest],
    }


def index_dependent_fraction(entry: dict, values: str, epoch: int) -> float:
    """Which fraction of the individual noise that is kept out depends on the index.

    entry: of spectrum.json. Of the individual part, 1 - share is kept out. The smooth directions,
    five octaves from the n/160-th to the n/5-th eigenvector, keep out k_s, all directions k, both
    weighted by energy. The fraction is 1 - k_s / k: 0 if every direction keeps out the same. NaN
    where the sample is so small that there are no such bands.
    """
    starts = np.array(entry["bands"][:-1])
    energy = as_array(entry["energies"]["individual"])
    kept_out = 1 - as_array(entry["shares"][values]["individual"])[epoch]
    smooth = (starts >= entry["bands"][-1] / 160) & (starts < entry["bands"][-1] / 5)
    if not smooth.any():
        return np.nan
    means = (np.average(kept_out[k], weights=energy[k]) for k in (smooth, slice(None)))
    return float(1 - np.divide(*means))


def like(name: str, values: str = "softmax") -> Callable[[dict, dict], float | None]:
    """The quantity: an entry of like_epoch; None where it is unknown."""

    def quantity(distilled: dict, plain: dict) -> float | None:
        entries = like_epoch(distilled, plain, values)
        return None if entries is None or np.isnan(entries[name]) else entries[name]

    return quantity


# Quantities of (distilled run, cross-entropy run), by name; the unit is in the name, else points.
EQUIVALENT_QUANTITIES: dict[str, Callable[[dict, dict], float | None]] = {
    "equivalent epoch of cross-entropy (epoch)": like("epoch"),
    "equivalent epoch by the level only (epoch)": like("epoch by level"),
    "equivalent epoch, one-hot (epoch)": like("epoch", "one_hot"),
    "distance to the equivalent epoch (share)": like("distance"),
    "distance to the epoch of the same level (share)": like("distance by level"),
    "step of cross-entropy at the equivalent epoch (share)": like("step"),
    "distance of the shapes there, beyond a step of cross-entropy's shape (share)": like(
        "shape beyond step"
    ),
    "individual noise kept out that depends on the index (fraction)": like("fraction"),
    "index-dependent fraction, beyond cross-entropy at the equivalent epoch (fraction)": like(
        "fraction beyond"
    ),
    "index-dependent fraction, beyond it, one-hot (fraction)": like("fraction beyond", "one_hot"),
    "clean labels held beyond the equivalent epoch (share)": like("excess"),
    "clean labels held beyond the equivalent epoch, one-hot (share)": like("excess", "one_hot"),
    "last epoch - cross-entropy at the equivalent epoch": like("accuracy"),
    "last epoch - cross-entropy at the equivalent epoch, one-hot": like("accuracy", "one_hot"),
    "memorization gap: last epoch - cross-entropy at the equivalent epoch": like("gap"),
    "memorization gap: last epoch - cross-entropy at the equivalent epoch, one-hot": like(
        "gap", "one_hot"
    ),
}
# Quantities that are not differences. A test against 0 would be meaningless: they have no p-value.
LEVELS = (
    "equivalent epoch of cross-entropy (epoch)",
    "equivalent epoch by the level only (epoch)",
    "equivalent epoch, one-hot (epoch)",
    "distance to the equivalent epoch (share)",
    "distance to the epoch of the same level (share)",
    "step of cross-entropy at the equivalent epoch (share)",
    "individual noise kept out that depends on the index (fraction)",
)
