"""The answer over several noises: what distillation changes, quantity by quantity, with intervals.

A quantity compares a distilled run with the cross-entropy run of the same draw. The primary one is
the paper's claim, declared before the runs: distillation at its last epoch minus cross-entropy
stopped early. Its p-values are corrected over the noises by Holm's method; all other quantities are
secondary and not corrected.
"""

from collections.abc import Callable, Sequence

import numpy as np

from analysis.curves import delta_index, group_by_loss, has_memorization, middle_delta
from analysis.memorization import SMALL_GAP, accuracy_at_gap, best_before_memorization
from analysis.run_comparison import compare_entries
from analysis.spectrum_file import as_array
from analysis.statistics import interval, stopping_epochs, what_varies
from common.errors import UserError
from losses import CROSS_ENTROPY

SPECTRUM_KERNEL = ("gaussian", 1600.0)  # of the equivalent epoch
PRIMARY = "last epoch - cross-entropy stopped early"


def accuracy_at(run: dict, stop: str) -> float | None:
    """Test accuracy in percent where the run is stopped; None without validation images."""
    epoch = stopping_epochs(run)[stop]
    return None if epoch is None else run["history"]["test_accuracy"][epoch]


def curves(run: dict) -> dict[str, list]:
    """The curves of the run's memorization.json."""
    return run["memorization"]["curves"]


def before_memorization(run: dict) -> float | None:
    """Best test accuracy while the memorization gap is under SMALL_GAP; None if it never is."""
    accuracy, gap = np.array(run["history"]["test_accuracy"]), np.array(curves(run)["gap"])
    best = best_before_memorization(accuracy, gap, SMALL_GAP)
    return None if best is None else best[1]


def plain_at_equal_gap(distilled: dict, plain: dict) -> float | None:
    """Test accuracy of `plain` where its gap first reaches that of `distilled` at its end."""
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


def like_epoch(distilled: dict, plain: dict) -> dict[str, float] | None:
    """Distillation's last epoch beside the epoch of cross-entropy with the nearest profile.

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


# Quantities of (distilled run, cross-entropy run), by name; the unit is in the name or points.
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


def answer(histories: Sequence[dict]) -> list[dict]:
    """Rows {noise, rate, loss, quantity, n, seeds, varies, mean, low, high, p, p_holm}.

    One history.json a noise. p is that of a t-test of the differences; p_holm stands at the primary
    quantity only, corrected over the noises for each loss. Raises UserError if a history has no
    cross-entropy, no distillation, or no memorization.json.
    """
    rows = []
    for history in histories:
        groups, name = group_by_loss(history), history["data"]["name"]
        if len(groups) < 2 or CROSS_ENTROPY not in groups:
            raise UserError(f"{name}: the answer needs cross-entropy and another loss; train both")
        if not has_memorization(history):
            raise UserError(f"{name}: no memorization.json in every run; run frequency.py")
        for loss in list(groups)[1:]:
            rows += contrast_rows(history, loss, groups[loss], groups[CROSS_ENTROPY])
    for loss in dict.fromkeys(row["loss"] for row in rows):
        primary = [row for row in rows if row["loss"] == loss and row["quantity"] == PRIMARY]
        for row, p in zip(primary, holm([row["p"] for row in primary]), strict=True):
            row["p_holm"] = p
    return rows


def contrast_rows(history: dict, loss: str, distilled: dict, plain: dict) -> list[dict]:
    """The rows of one noise and one loss; distilled, plain: draw -> run."""
    from scipy import stats

    draws = [draw for draw in distilled if draw in plain]
    rows = []
    for quantity, compute in QUANTITIES.items():
        values = {draw: compute(distilled[draw], plain[draw]) for draw in draws}
        values = {draw: value for draw, value in values.items() if value is not None}
        if not values:
            continue
        sample = list(values.values())
        varies = len(sample) > 1 and np.ptp(sample) > 0
        rows.append(
            {
                "noise": history["data"]["noise"],
                "rate": history["data"]["rate_found"],
                "loss": loss,
                "quantity": quantity,
                "seeds": list(values),
                "varies": what_varies(history),
                **interval(sample),
                "p": float(stats.ttest_1samp(sample, 0).pvalue) if varies else None,
                "p_holm": None,
            }
        )
    return rows


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for their number by Holm's step-down method; None stays None.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979). The k-th smallest of m is
    multiplied by m - k + 1, kept at least the one before it and at most 1.
    """
    known = sorted((p, k) for k, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, k) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[k] = largest
    return corrected
