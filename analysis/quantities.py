"""The quantities of the answer: what distillation changes, as functions of two runs.

Each compares a distilled run with the cross-entropy run of the same draw; QUANTITIES lists them by
name. Runs are those of history.json. Accuracies and gaps are percent points, shares are learned
shares (analysis/label_parts.py), epochs count from 1. A quantity is None where it is unknown.
"""

from collections.abc import Callable, Sequence

import numpy as np

from analysis.curves import delta_index, middle_delta
from analysis.equivalent_quantities import EQUIVALENT_QUANTITIES
from analysis.memorization import SMALL_GAP, accuracy_at_gap, best_before_memorization
from analysis.statistics import stopping_epochs

PRIMARY = "last epoch - cross-entropy stopped early"
PART_TITLES = {
    "clean": "clean labels",
    "transition": "transition",
    "individual": "individual noise",
}
EQUAL_GAPS = (20, 30, 40, 50)  # points, which all losses pass in the middle of training
EARLY_SHARE = 0.25  # of a part, which every run that memorizes reaches in both bands


def accuracy_at(run: dict, stop: str) -> float | None:
    """Test accuracy in percent where the run is stopped; None without validation images."""
    epoch = stopping_epochs(run)[stop]
    return None if epoch is None else run["history"]["test_accuracy"][epoch]


def change_after_stop(run: dict) -> float | None:
    """Test accuracy at the last epoch minus that where early stopping would have ended the run."""
    return difference(accuracy_at(run, "last"), accuracy_at(run, "early"))


def curves(run: dict) -> dict[str, list]:
    """The curves of the run's memorization.json."""
    return run["memorization"]["curves"]


def accuracy_at_smoothed_stop(run: dict) -> float | None:
    """Test accuracy at the epoch whose validation accuracy, averaged with its neighbors', is best.

    Single epochs jump; this rule is steadier than `early`. None without validation images.
    """
    validation = run["history"].get("val_accuracy") or [None]
    if validation[0] is None:
        return None
    padded = np.pad(np.array(validation, float), 1, constant_values=np.nan)
    means = np.nanmean([padded[:-2], padded[1:-1], padded[2:]], axis=0)
    return run["history"]["test_accuracy"][int(np.argmax(means))]


def before_memorization(run: dict) -> float | None:
    """Best test accuracy before the memorization gap has risen by SMALL_GAP points.

    It rises from its value after the first epoch, which is above 0 where people label the harder
    images wrong.
    """
    accuracy, gap = np.array(run["history"]["test_accuracy"]), np.array(curves(run)["gap"])
    best = best_before_memorization(accuracy, gap - gap[0], SMALL_GAP)
    return None if best is None else best[1]


def accuracies_at_equal_gaps(run: dict) -> float | None:
    """Mean test accuracy where the gap first reaches each of EQUAL_GAPS; None if it misses one."""
    accuracy, gap = np.array(run["history"]["test_accuracy"]), np.array(curves(run)["gap"])
    values = [accuracy_at_gap(accuracy, gap, level) for level in EQUAL_GAPS]
    return None if None in values else float(np.mean(values))


def plain_at_equal_gap(distilled: dict, plain: dict) -> float | None:
    """Test accuracy of `plain` where its gap first reaches the last gap of `distilled`."""
    accuracy, gap = plain["history"]["test_accuracy"], curves(plain)["gap"]
    return accuracy_at_gap(np.array(accuracy), np.array(gap), curves(distilled)["gap"][-1])


def band_difference(run: dict, outputs: str, epoch: int = -1) -> float | None:
    """Learned share of the individual part after an epoch, low minus high, at the middle delta.

    outputs: "outputs" for softmax, "one_hot" for predictions. epoch: its index.
    """
    section = run["frequency"]["probe"]
    column = delta_index(section["delta"], None, default=middle_delta(section["delta"]))
    low, high = (section[outputs][f"individual_{band}"][epoch][column] for band in ("low", "high"))
    return None if low is None or high is None else low - high


def band_difference_beyond(distilled: dict, plain: dict) -> float | None:
    """band_difference of softmax outputs, minus that of `plain` at equal memorization.

    That is the epoch whose unfiltered share of the individual part is nearest to the last one of
    `distilled`: also under cross-entropy the low band is ahead while labels are being memorized.
    """
    shares = np.array(curves(plain)["softmax_individual"], float)
    nearest = int(np.argmin(np.abs(shares - curves(distilled)["softmax_individual"][-1])))
    return difference(
        band_difference(distilled, "outputs"), band_difference(plain, "outputs", nearest)
    )


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
    "last epoch - cross-entropy's best test epoch (oracle)": lambda d, p: difference(
        accuracy_at(d, "last"), accuracy_at(p, "oracle")
    ),
    "own last epoch - own early stopping": lambda d, p: change_after_stop(d),
    "cross-entropy: last epoch - early stopping": lambda d, p: change_after_stop(p),
    "own last epoch - own early stopping, minus that of cross-entropy": lambda d, p: difference(
        change_after_stop(d), change_after_stop(p)
    ),
    "last epoch - cross-entropy stopped early by a mean of three epochs": lambda d, p: difference(
        accuracy_at(d, "last"), accuracy_at_smoothed_stop(p)
    ),
    f"best test epoch before the gap rises by {SMALL_GAP} points": lambda d, p: difference(
        before_memorization(d), before_memorization(p)
    ),
    f"both at gaps of {EQUAL_GAPS[0]} to {EQUAL_GAPS[-1]} points (mean)": lambda d, p: difference(
        accuracies_at_equal_gaps(d), accuracies_at_equal_gaps(p)
    ),
    "last epoch - cross-entropy at equal memorization gap": lambda d, p: difference(
        accuracy_at(d, "last"), plain_at_equal_gap(d, p)
    ),
    "memorization gap at the last epoch": last_difference("gap"),
    "noisy-label AUC at the last epoch (area)": last_difference("auc"),
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
    "individual noise, low minus high, beyond cross-entropy at equal memorization (share)": (
        band_difference_beyond
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
    **EQUIVALENT_QUANTITIES,
}
