"""The curves of the runs in a history.json, and the runs by loss and draw.

A draw is one data set with its own images, noisy labels, validation set, and training seed.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from common.errors import UserError
from common.flags import fixed_in_study
from losses import CROSS_ENTROPY, SELF_DISTILLATION

ENOUGH_MASS = 2  # below this median kernel mass, a filtered value is mostly the image's own
Curve = Callable[[dict], list]  # of one run of history.json, over its epochs


def draw_key(run: dict) -> int | str:
    """The draw of a run: its seed, or <data-set seed>/<seed> where the two differ."""
    data_seed = run.get("data", {}).get("seed", run["seed"])
    return run["seed"] if data_seed == run["seed"] else f"{data_seed}/{run['seed']}"


def group_by_loss(history: dict) -> dict[str, dict[int | str, dict]]:
    """loss -> draw (draw_key) -> run; cross-entropy and the original's distillation first.

    Raises UserError if the runs differ in more than loss and seed: they cannot be averaged.
    """
    groups: dict[str, dict[int | str, dict]] = {CROSS_ENTROPY: {}, SELF_DISTILLATION: {}}
    first = history["runs"][0]
    draws = len({run.get("data", {}).get("digest") for run in history["runs"]}) > 1
    for run in history["runs"]:
        for name, value in fixed_in_study(run["settings"]).items():
            expected = first["settings"].get(name)
            if value != expected:
                raise UserError(
                    f"runs {first['run']} and {run['run']} differ in {name}: {expected}, {value}; "
                    "name the folder of one setting, as in: plot.py runs/cifar10-pair40"
                )
        key = draw_key(run) if draws else run["seed"]
        other = groups.setdefault(run["loss"], {}).setdefault(key, run)
        if other is not run:
            raise UserError(
                f"runs {other['run']} and {run['run']} have the same loss and seed; name one only"
            )
    return {loss: runs for loss, runs in groups.items() if runs}


def history_curve(name: str) -> Curve:
    """The curve `name` of a run's history."""
    return lambda run: run["history"][name]


def frequency_curve(section: str, measure: str, column: int) -> Curve:
    """A measure of frequency.json (section test or probe) at the column-th delta, over epochs."""
    return lambda run: [row[column] for row in run["frequency"][section]["outputs"][measure]]


def memorization_curve(name: str) -> Curve:
    """The curve `name` of a run's memorization.json."""
    return lambda run: run["memorization"]["curves"][name]


def one_hot_curve(measure: str, column: int) -> Curve:
    """A measure of the one-hot predictions of training images at the column-th delta."""
    return lambda run: [row[column] for row in run["frequency"]["probe"]["one_hot"][measure]]


def has_memorization(history: dict) -> bool:
    """Whether every run has a memorization.json, of a data set with wrong labels."""
    return all(
        run.get("memorization") and run["memorization"]["curves"]["gap"][0] is not None
        for run in history["runs"]
    )


def frequency_section(history: dict, section: str, measures: Sequence[str]) -> dict:
    """The section `test` or `probe` of the first run's frequency.json; all runs share its deltas.

    Raises UserError, with the remedy, unless every run has `measures` at these deltas.
    """
    for run in history["runs"]:
        if run["frequency"] is None:
            raise UserError("no frequency.json in every run: run frequency.py")
        if run["frequency"][section]["delta"] != history["runs"][0]["frequency"][section]["delta"]:
            raise UserError("frequency.json of different deltas: run frequency.py")
        if not set(measures) <= set(run["frequency"][section]["outputs"]):
            raise UserError("frequency.json of logits: run frequency.py without --values")
    return history["runs"][0]["frequency"][section]


def delta_index(deltas: Sequence[float], delta: float | None, default: float) -> int:
    """The index of `delta`, or of that nearest to `default` if it is None. Raises UserError."""
    if delta is None:
        return min(range(len(deltas)), key=lambda k: abs(math.log(deltas[k] / default)))
    if delta not in deltas:
        raise UserError(
            f"--delta {delta:g} was not measured: run frequency.py --delta {delta:g}, or use one "
            f"of {', '.join(f'{d:g}' for d in deltas)}"
        )
    return deltas.index(delta)


def middle_delta(deltas: Sequence[float]) -> float:
    """The delta that tables and figures show by default.

    At this delta a filtered value averages tens of points, and both bands hold much of the labels.
    """
    return deltas[len(deltas) * 5 // 9]


def stack(curves: Sequence[Sequence[float]]) -> np.ndarray:
    """(runs, epochs) float64 over the epochs that all curves have; NaN where there is no value."""
    epochs = min(len(curve) for curve in curves)
    return np.array([curve[:epochs] for curve in curves], dtype=float)
