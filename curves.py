"""Curves of the runs in a history.json: which there are, of which runs, over which epochs."""

import math
from collections.abc import Callable, Sequence

import numpy as np

import runs

Curve = Callable[[dict], list]  # of one run of history.json, over its epochs
LOSS_AND_SEED = ("dis", "teacher", "soft", "weight", "seed", "device")  # what runs may differ in


def by_loss(history: dict) -> dict[str, dict[int, dict]]:
    """loss -> seed -> run of history.json, cross-entropy and the original's distillation first.

    Raises RunError if the runs differ in more than loss and seed, for they have no common mean.
    """
    groups: dict[str, dict[int, dict]] = {runs.PLAIN: {}, runs.DISTILLED: {}}
    first = history["runs"][0]
    for run in history["runs"]:
        for name, now in run["settings"].items():
            before = first["settings"].get(name)
            if before != now and name not in LOSS_AND_SEED:
                raise runs.RunError(
                    f"runs {first['run']} and {run['run']} differ in {name}: {before}, {now}; "
                    "name the runs of one setting"
                )
        other = groups.setdefault(run["loss"], {}).setdefault(run["seed"], run)
        if other is not run:
            raise runs.RunError(
                f"runs {other['run']} and {run['run']} have one loss and one seed; name one of them"
            )
    return {loss: seeds for loss, seeds in groups.items() if seeds}


def of_history(name: str) -> Curve:
    """The curve `name` of a run's history."""
    return lambda run: run["history"][name]


def of_frequency(part: str, measure: str, column: int) -> Curve:
    """A measure of frequency.json (part test or probe) at the column-th delta, over epochs."""
    return lambda run: [row[column] for row in run["frequency"][part]["outputs"][measure]]


def measured(history: dict, part: str, measures: Sequence[str]) -> dict:
    """The test or probe part of the first run's frequency.json, whose deltas all runs share.

    Raises RunError, with the remedy, unless every run has `measures` at these deltas.
    """
    for run in history["runs"]:
        if run["frequency"] is None:
            raise runs.RunError("no frequency.json in every run: run frequency.py")
        if run["frequency"][part]["delta"] != history["runs"][0]["frequency"][part]["delta"]:
            raise runs.RunError("frequency.json of different deltas: run frequency.py")
        if not set(measures) <= set(run["frequency"][part]["outputs"]):
            raise runs.RunError("frequency.json of logits: run frequency.py without --values")
    return history["runs"][0]["frequency"][part]


def column_of(deltas: Sequence[float], delta: float | None, default: float) -> int:
    """The index of `delta`, or of that nearest to `default` if it is None. Raises RunError."""
    if delta is None:
        return min(range(len(deltas)), key=lambda k: abs(math.log(deltas[k] / default)))
    if delta not in deltas:
        raise runs.RunError(
            f"--delta {delta:g} was not measured: run frequency.py --delta {delta:g}, or use one "
            f"of {', '.join(f'{d:g}' for d in deltas)}"
        )
    return deltas.index(delta)


def middle_delta(deltas: Sequence[float]) -> float:
    """The delta that tables and figures show unless another is asked for.

    A filtered value is there a mean of tens of points, and both bands hold much of the labels.
    """
    return deltas[len(deltas) * 5 // 9]


def stack(curves: Sequence[Sequence[float]]) -> np.ndarray:
    """(runs, epochs) float64 over the epochs that all curves have; NaN where there is no value."""
    epochs = min(len(curve) for curve in curves)
    return np.array([curve[:epochs] for curve in curves], dtype=float)
