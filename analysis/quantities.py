"""The quantities of the answer: what distillation changes, as functions of two runs.

Each compares a distilled run with the cross-entropy run of the same draw; QUANTITIES lists them by
name. Runs are those of history.json. Accuracies and gaps are percent points, shares are learned
shares (analysis/label_parts.py), epochs count from 1. A quantity is None where it is unknown.
"""

from collections.abc import Callable, Sequence

import numpy as np

from analysis.curves import delta_index, middle_delta
from analysis.memorization import SMALL_GAP, accuracy_at_gap, best_before_memorization
from analysis.run_comparison import compare_entries
from analysis.spectrum_file import as_array
from analysis.statistics import stopping_epochs

PRIMARY = "last epoch - cross-entropy stopped early"
PART_TITLES = {"clean": "clean labels", "individual": "individual noise"}
SPECTRUM_KERNEL = ("gaussian", 1600.0)  # of the equivalent epoch
EARLY_SHARE = 0.25  # of a part, which every run that memorizes reaches in both bands


def accuracy_at(run: dict, stop: str) -> float | None:
    """Test accuracy in percent where the run is stopped; None without validation images."""
    epoch = stopping_epochs(run)[stop]
    return None if epoch is None else run["history"]["test_accuracy"][epoch]


def curves(run: dict) -> dict[str, list]:
    """The curves of the run's memorization.json."""
    return run["memorization"]["curves"]


def before_memorization(run: dict) -> float | None:
    """Best test accuracy while the memorization gap is below SMALL_GAP; None if it never is."""
    accuracy, gap = np.array(run["history"]["test_accuracy"]), np.array(curves(run)["gap"])
    best = best_before_memorization(accuracy, gap, SMALL_GAP)
    return None if best is None else best[1]


def plain_at_equal_gap(distilled: dict, plain: dict) -> float | None:
    """Test accuracy of `plain` where its gap first reaches the last gap of `distilled`."""
    accuracy, gap = plain["history"]["test_accuracy"], curves(plain)["gap"]
    return accuracy_at_gap(np.array(accuracy), np.array(gap), curves(distilled)["gap"][-1])


def band_difference(run: dict, outputs: str) -> float | None:
    """Learned share of the individual part at the last epoch, low minus high, at the middle delta.

    outputs: "outputs" for softmax, "one_hot" for predictions.
    """
    section = run["frequency"]["probe"]
    column = delta_index(section["delta"], None, default=middle_delta(section["delta"]))
    low, high = (section[outputs][f"individual_{band}"][-1][column] for band in ("low", "high"))
    return None if low is None or high is None else low - high


def epochs_ahead(run: dict, part: str) -> float | None:
    """By how many epochs the low band of a part is learned before the high one, middle delta.

    The epoch in which a band's learned share (softmax) first reaches EARLY_SHARE, high minus low.
    None where a band never reaches it, or the part was dropped.
    """
    section = run["frequency"]["probe"]
    column = delta_index(section["delta"], None, default=middle_delta(section["delta"]))
    epochs = []
    for band in ("low", "high"):
        shares = [row[column] for row in section["outputs"][f"{part}_{band}"]]
        epochs.append(None if None in shares else first_epoch(shares, EARLY_SHARE))
    return difference(epochs[1], epochs[0])


def first_epoch(curve: Sequence[float], level: float) -> float | None:
    """When a curve (epochs,) first reaches `level`: an epoch from 1, linear in between, or None."""
    reached = np.flatnonzero(np.asarray(curve) >= level)
    if not len(reached):
        return None
    k = int(reached[0])
    return float(k + 1 if k == 0 else k + (level - curve[k - 1]) / (curve[k] - curve[k - 1]))


def like_epoch(distilled: dict, plain: dict) -> dict[str, float] | None:
    """Compare distillation's last epoch with the epoch of cross-entropy with the nearest profile.

    Profiles are the shares of the individual part along the eigenvectors of SPECTRUM_KERNEL. None
    where a run has no spectrum.json with this kernel.
    """
    entries = [spectrum_entry(run) for run in (distilled, plain)]
    if None in entries:
        return None
    path, excess = compare_entries(*entries, "softmax")
    nearest = int(path.nearest[-1])
    energy = as_array(entries[0]["energies"]["clean"])
    return {
        "epoch": nearest + 1,
        "distance": float(path.distance[-1]),
        "distance by level": float(path.distance_by_level[-1]),
        "epoch by level": int(path.by_level[-1]) + 1,
        "step": float(path.resolution[-1]),
        "excess": float(np.nansum(excess[-1] * energy)),
        "accuracy": difference(
            accuracy_at(distilled, "last"), plain["history"]["test_accuracy"][nearest]
        ),
        "gap": curves(distilled)["gap"][-1] - curves(plain)["gap"][nearest],
    }


def spectrum_entry(run: dict) -> dict | None:
    """The run's entry of spectrum.json for SPECTRUM_KERNEL; None if there is none."""
    entries = (run.get("spectrum") or {"kernels": []})["kernels"]
    return next((e for e in entries if (e["kernel"], e["delta"]) == SPECTRUM_KERNEL), None)


def like(name: str) -> Callable[[dict, dict], float | None]:
    """The quantity: an entry of like_epoch."""

    def quantity(distilled: dict, plain: dict) -> float | None:
        values = like_epoch(distilled, plain)
        return None if values is None else values[name]

    return quantity


def difference(first: float | None, second: float | None) -> float | None:
    """first - second, None if either is unknown."""
    return None if first is None or second is None else first - second


def last_difference(name: str) -> Callable[[dict, dict], float | None]:
    """The quantity: curve `name` of memorization.json at the last epoch, distilled minus plain."""
    return lambda distilled, plain: difference(curves(distilled)[name][-1], curves(plain)[name][-1])


# Quantities of (distilled run, cross-entropy run), by name; the unit is in the name, else points.
QUANTITIES: dict[str, Callable[[dict, dict], float | None]] = {
    PRIMARY: lambda d, p: difference(accuracy_at(d, "last"), accuracy_at(p, "early")),
    "both stopped early": lambda d, p: difference(accuracy_at(d, "early"), accuracy_at(p, "early")),
    "both at the last epoch": lambda d, p: difference(
        accuracy_at(d, "last"), accuracy_at(p, "last")
    ),
    "both at their best test epoch (oracle)": lambda d, p: difference(
        accuracy_at(d, "oracle"), accuracy_at(p, "oracle")
    ),
    "own last epoch - own early stopping": lambda d, p: difference(
        accuracy_at(d, "last"), accuracy_at(d, "early")
    ),
    "cross-entropy: last epoch - early stopping": lambda d, p: difference(
        accuracy_at(p, "last"), accuracy_at(p, "early")
    ),
    f"best test epoch with a gap under {SMALL_GAP} points": lambda d, p: difference(
        before_memorization(d), before_memorization(p)
    ),
    "last epoch - cross-entropy at equal memorization gap": lambda d, p: difference(
        accuracy_at(d, "last"), plain_at_equal_gap(d, p)
    ),
    "memorization gap at the last epoch": last_difference("gap"),
    "individual noise learned (share)": last_difference("softmax_individual"),
    "individual noise learned, one-hot (share)": last_difference("one_hot_individual"),
    "clean labels learned (share)": last_difference("softmax_clean"),
    "clean labels learned, one-hot (share)": last_difference("one_hot_clean"),
    "transition learned (share)": last_difference("softmax_transition"),
    "individual noise, low minus high (share)": lambda d, p: band_difference(d, "outputs"),
    "individual noise, low minus high, one-hot (share)": lambda d, p: band_difference(d, "one_hot"),
    "cross-entropy: individual noise, low minus high (share)": lambda d, p: band_difference(
        p, "outputs"
    ),
    **{
        f"cross-entropy: {title} learned low before high (epoch)": (
            lambda d, p, part=part: epochs_ahead(p, part)
        )
        for part, title in PART_TITLES.items()
    },
    **{
        f"{title} learned low before high (epoch)": lambda d, p, part=part: epochs_ahead(d, part)
        for part, title in PART_TITLES.items()
    },
    "confidence on test images": last_difference("test_confidence"),
    "calibration error on test images": last_difference("test_calibration_error"),
    "equivalent epoch of cross-entropy (epoch)": like("epoch"),
    "equivalent epoch by the level only (epoch)": like("epoch by level"),
    "distance to the equivalent epoch (share)": like("distance"),
    "distance to the epoch of the same level (share)": like("distance by level"),
    "step of cross-entropy at the equivalent epoch (share)": like("step"),
    "clean labels held beyond the equivalent epoch (share)": like("excess"),
    "last epoch - cross-entropy at the equivalent epoch": like("accuracy"),
    "memorization gap: last epoch - cross-entropy at the equivalent epoch": like("gap"),
}
# Quantities that are not differences. A test against 0 would be meaningless: they have no p-value.
LEVELS = (
    "equivalent epoch of cross-entropy (epoch)",
    "equivalent epoch by the level only (epoch)",
    "distance to the equivalent epoch (share)",
    "distance to the epoch of the same level (share)",
    "step of cross-entropy at the equivalent epoch (share)",
)
