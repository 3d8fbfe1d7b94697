"""Until the merge: copies of what analysis/ gets. The integrator deletes this file.

analysis.history: ENOUGH_MASS, shown_delta; analysis.statistics: STOPS, at_gap, first_epoch,
stopping_epoch; analysis.quantities: RATIO_DELTA, BAND_DELTA, QUARTER.
"""

import numpy as np

from analysis.history import Run
from common.command_line import UserError

ENOUGH_MASS = 2  # below this median kernel mass, a filtered value is mostly the image's own
STOPS = {"last": "last epoch", "early": "stopped early", "best_test": "best test epoch"}
RATIO_DELTA = 400  # of Delta, the original's figure
BAND_DELTA = 564  # of errors and coefficients by band: both bands hold much of the labels
QUARTER = 0.25  # of a part of the labels


def shown_delta(section: dict, wanted: float) -> float:
    """The measured delta nearest to `wanted`, in its logarithm, of those that filter."""
    pairs = zip(section["delta"], section["mass"], strict=True)
    filtering = [delta for delta, mass in pairs if mass is not None and mass >= ENOUGH_MASS]
    if not filtering:
        raise UserError("no measured delta filters: run frequency.py with a larger --delta")
    return min(filtering, key=lambda d: abs(np.log(d / wanted)))


def stopping_epoch(run: Run, stop: str) -> int | None:
    """The index of the epoch of a stopping rule: last, early or best_test."""
    if stop == "last":
        return len(run.history["test_accuracy"]) - 1
    curve = run.history["val_accuracy" if stop == "early" else "test_accuracy"]
    return None if np.isnan(curve).any() else int(np.argmax(curve))


def first_epoch(curve: np.ndarray, level: float) -> float:
    """The epoch, from 1, in which a curve (epochs,) first reaches `level`; NaN if it never does."""
    reached = np.flatnonzero(curve >= level)
    if not len(reached):
        return float("nan")
    k = int(reached[0])
    return float(k + 1 if k == 0 else k + (level - curve[k - 1]) / (curve[k] - curve[k - 1]))


def at_gap(run: Run, curve: np.ndarray, level: float) -> float:
    """The run's curve (epochs,) where its memorization gap first reaches `level` points."""
    epoch = first_epoch(run.gap, level)
    if np.isnan(epoch) or run.gap[0] > level:
        return float("nan")
    return float(np.interp(epoch, np.arange(1, len(curve) + 1), curve))
