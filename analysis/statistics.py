"""The epoch at which each run stops, and the results there: means over seeds, with intervals.

Three ways to stop are compared: the last epoch; early stopping at the epoch of the best accuracy on
held-out images with noisy labels, which is possible in practice; and the best test epoch, which
only an oracle knows. Intervals are Student's t at 95% over seeds. Differences are paired: runs of
one seed share labels, initialization and order. With one seed there is no interval.
"""

from collections.abc import Sequence

import numpy as np

from analysis.curves import (
    Curve,
    delta_index,
    frequency_curve,
    frequency_section,
    group_by_loss,
    has_memorization,
    history_curve,
    memorization_curve,
    middle_delta,
    one_hot_curve,
)
from analysis.label_parts import PARTS
from common.errors import UserError

STOPS = {
    "last": "last epoch",
    "early": "early stopping",
    "oracle": "best test epoch (oracle)",
}
# Distillation stopped by the first rule minus cross-entropy stopped by the second.
CONTRASTS = (
    *((stop, stop) for stop in STOPS),
    ("last", "early"),
    ("last", "oracle"),
)
CONFIDENCE = 0.95


def stopping_epochs(run: dict) -> dict[str, int | None]:
    """The index of the epoch that each stopping rule chooses; the first one of several equal ones.

    `early` is None for a run without validation images.
    """
    history = run["history"]
    validation = history.get("val_accuracy") or [None]
    return {
        "last": len(history["test_accuracy"]) - 1,
        "early": None if validation[0] is None else int(np.argmax(validation)),
        "oracle": int(np.argmax(history["test_accuracy"])),
    }


def study_measures(history: dict) -> dict[str, Curve]:
    """The measures that all runs of history.json have, by name; frequencies at one delta."""
    measures = {"test_accuracy": history_curve("test_accuracy")}
    if history["runs"][0]["history"]["sample_memorized"][0] is not None:
        measures["memorized"] = history_curve("sample_memorized")
    if has_memorization(history):
        curves = history["runs"][0]["memorization"]["curves"]
        names = [name for name, curve in curves.items() if curve[0] is not None]
        measures |= {name: memorization_curve(name) for name in names}
    return measures | frequency_measures(history)


def frequency_measures(history: dict) -> dict[str, Curve]:
    """The frequency measures that all runs have at the middle delta, by name."""
    measures = {}
    learned = [f"learned_{part}_{band}" for part in ("true", "noise") for band in ("low", "high")]
    parts = [f"{part}_{band}" for part in PARTS for band in ("low", "high")]
    wanted = (("test", ["e_low", "e_high"]), ("probe", learned), ("probe", parts))
    for section, names in wanted:
        try:
            content = frequency_section(history, section, names)
        except UserError:
            continue
        column = delta_index(content["delta"], None, default=middle_delta(content["delta"]))
        at_delta = f"at delta {content['delta'][column]:g}"
        for name in names:
            if content["outputs"][name][0][column] is None:
                continue
            measures[f"{name} {at_delta}"] = frequency_curve(section, name, column)
            if names is parts:
                measures[f"one-hot {name} {at_delta}"] = one_hot_curve(name, column)
    return measures


def what_varies(history: dict) -> str:
    """What differs between the runs of one loss, and so what the intervals are over."""
    if len({run.get("data", {}).get("digest") for run in history["runs"]}) > 1:
        return "draws of images, labels, validation set, initialization and order"
    if any(run["settings"].get("augment", True) for run in history["runs"]):
        return "initialization, order and crops; one draw of the labels"
    return "initialization and order; one draw of the labels"


def interval(values: Sequence[float]) -> dict:
    """Mean of `values` (n,) and its 95% t-interval: n, mean, low, high (None for n = 1)."""
    from scipy import stats

    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return {"n": 1, "mean": mean, "low": None, "high": None}
    if np.ptp(values) == 0:
        return {"n": count, "mean": mean, "low": mean, "high": mean}
    bounds = stats.ttest_1samp(values, 0).confidence_interval(CONFIDENCE)
    return {"n": count, "mean": mean, "low": float(bounds.low), "high": float(bounds.high)}


def paired_difference(values: Sequence[float], baseline: Sequence[float]) -> dict:
    """Mean of values - baseline (n,), its interval, and p of a paired t-test (None for n = 1)."""
    from scipy import stats

    difference = np.subtract(values, baseline)
    varies = np.ptp(difference) > 0
    p = float(stats.ttest_rel(values, baseline).pvalue) if varies else None
    return {**interval(difference), "p": p}


def values_at_stop(runs: dict[int, dict], curve: Curve, stop: str) -> dict[int, float]:
    """seed -> the measure at the epoch where the run stops; empty if that is unknown."""
    epochs = {seed: stopping_epochs(run)[stop] for seed, run in runs.items()}
    if None in epochs.values():
        return {}
    return {seed: curve(runs[seed])[epoch] for seed, epoch in epochs.items()}


def summarize(history: dict) -> list[dict]:
    """Rows of the table, each with the fields of table.COLUMNS.

    First the mean of every measure for each loss and stop, then CONTRASTS of every other loss with
    cross-entropy, seed by seed; these rows have `minus_loss`, `minus_stop` and p. Raises UserError
    if the runs cannot be averaged.
    """
    groups, measures = group_by_loss(history), study_measures(history)
    setting = {
        "noise": history["data"]["noise"],
        "rate": history["data"]["rate_found"],
        "network": history["runs"][0]["network"],
        "varies": what_varies(history),
    }
    empty = {"minus_loss": None, "minus_stop": None, "p": None}
    rows = []
    for measure, curve in measures.items():
        for loss, runs in groups.items():
            for stop in STOPS:
                if values := values_at_stop(runs, curve, stop):
                    place = {"loss": loss, "stop": stop, **empty, "measure": measure}
                    content = interval(list(values.values()))
                    rows.append({**setting, **place, "seeds": list(values), **content})
    baseline, *others = groups
    for measure, curve in measures.items():
        for loss in others:
            for stop, baseline_stop in CONTRASTS:
                values = values_at_stop(groups[loss], curve, stop)
                plain = values_at_stop(groups[baseline], curve, baseline_stop)
                seeds = [seed for seed in values if seed in plain]
                if seeds:
                    place = {"loss": loss, "stop": stop, "measure": measure}
                    place |= {"minus_loss": baseline, "minus_stop": baseline_stop}
                    content = paired_difference(
                        [values[seed] for seed in seeds], [plain[seed] for seed in seeds]
                    )
                    rows.append({**setting, **place, "seeds": seeds, **content})
    return rows
