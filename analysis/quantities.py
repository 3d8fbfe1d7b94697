"""What is measured of one run, and every quantity that is compared: the one list of them.

A quantity is a function of a distilled run and the cross-entropy run of its seed. Accuracies and
gaps are percent and points, coefficients fractions (measures/parts.py), epochs count from 1.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from analysis.history import NAN, Run, filtering, nearest
from analysis.statistics import at_level, at_stop, first_epoch

RATIO_DELTA = 400  # of Delta, the original's figure
BAND_DELTA = 564  # of errors and coefficients by band: both bands hold much of the labels
GAPS = (10, 20, 30, 40, 50, 60)  # points of the memorization gap at which curves are compared
RESIDUALS = (0.1, 0.2, 0.3, 0.4, 0.5)  # one-hot residual coefficients, likewise
QUARTER = 0.25  # of a part of the labels, which every run that memorizes reaches in both bands
# After the point, by unit.
DIGITS = {"percent": 1, "points": 1, "epochs": 1, "coefficient": 3, "ratio": 3}
ACCURACY, CALIBRATION = "test_accuracy", "test_calibration_error"
NOT_MEASURED = ("epoch", "lr", "seconds", "images_per_second")  # curves of no interest here
# Curves of frequency.json: section, measure, values, and the delta at which tables show it.
BAND_CURVES = {
    "test_energy_share": ("test", "energy_share", "outputs", RATIO_DELTA),
    "test_e_low": ("test", "e_low", "outputs", BAND_DELTA),
    "test_e_high": ("test", "e_high", "outputs", BAND_DELTA),
    **{
        f"{name}_{part}_{band}": ("sample", f"{part}_{band}", values, BAND_DELTA)
        for name, values in (("sample", "outputs"), ("one_hot", "one_hot"))
        for part in ("clean", "transition", "residual")
        for band in ("low", "high")
    },
}


def shown_delta(run: Run, name: str) -> float:
    """The delta that filters nearest to that of a curve of BAND_CURVES; NaN if none does."""
    section, *_, wanted = BAND_CURVES[name]
    return nearest(filtering(run.frequency[section]), wanted) if run.frequency else NAN


def run_curve(run: Run, name: str) -> np.ndarray:
    """A curve (epochs,) of the run by its name in `curve_names`; NaN where it is not measured."""
    if name == "gap":
        return run.gap
    if name in BAND_CURVES and not np.isnan(delta := shown_delta(run, name)):
        section, measure, values, _ = BAND_CURVES[name]
        if measure in run.frequency[section].get(values, {}):
            return run.band(section, measure, delta, values)
    return run.curve(name)


def curve_names(runs: Iterable[Run]) -> list[str]:
    """The names of all curves of the runs that tables average."""
    own = [name for run in runs for name in (*run.history, *run.memorization)]
    names = dict.fromkeys([*own, "gap", *BAND_CURVES])
    return [name for name in names if name not in NOT_MEASURED]


@dataclass(frozen=True)
class Quantity:
    """One number of a distilled run and the cross-entropy run of its seed."""

    key: str  # in results.json
    title: str  # in tables
    unit: str  # of DIGITS
    of: Callable[[Run, Run], float]  # (distilled, cross-entropy); NaN where unknown
    is_difference: bool = True  # it has a sign, and is tested against 0
    is_shown: bool = True  # in tables; results.json has all


def at(curve: str, stop: str) -> Callable[[Run], float]:
    """A curve of `curve_names` where a rule of STOPS ends the run."""
    return lambda run: at_stop(run, run_curve(run, curve), stop)


def lost(run: Run) -> float:
    """Test accuracy at the last epoch minus that where early stopping ends the run."""
    return at(ACCURACY, "last")(run) - at(ACCURACY, "early")(run)


def head_start(run: Run) -> float:
    """By how many epochs the right labels' high band is learned before the wrong ones' low band.

    When their softmax coefficients first reach QUARTER; positive if the right labels are first.
    """
    right, wrong = run_curve(run, "sample_clean_high"), run_curve(run, "sample_residual_low")
    return first_epoch(wrong, QUARTER) - first_epoch(right, QUARTER)


def minus(curve: str, stop: str, baseline_stop: str = "") -> Callable[[Run, Run], float]:
    """The difference of a curve of `curve_names`, each run where a rule of STOPS ends it.

    baseline_stop: the rule of the cross-entropy run, by default the same.
    """
    first, second = at(curve, stop), at(curve, baseline_stop or stop)
    return lambda distilled, baseline: first(distilled) - second(baseline)


def at_equal(axis: str, levels: Sequence[float], curve: str) -> Callable[[Run, Run], float]:
    """The difference of a curve where another one, `axis`, is equal: mean over some levels of it.

    Over those of `levels` that both runs pass; NaN if they share none.
    """

    def of(distilled: Run, baseline: Run) -> float:
        first, second = (
            [at_level(run_curve(run, axis), run_curve(run, curve), level) for level in levels]
            for run in (distilled, baseline)
        )
        known = [d - b for d, b in zip(first, second, strict=True) if not np.isnan(d - b)]
        return float(np.mean(known)) if known else NAN

    return of


equal_gap = partial(at_equal, "gap", GAPS)
REPLACE, ADD = "replace", "add"  # the primary contrasts of results/PLAN.md
LOST = "last epoch - stopped early"
ORDER = "right labels' high band before wrong labels' low band"
QUANTITIES = [
    Quantity(
        REPLACE,
        "replace: last epoch - cross-entropy stopped early",
        "points",
        minus(ACCURACY, "last", "early"),
    ),
    Quantity(ADD, "add: both stopped early", "points", minus(ACCURACY, "early")),
    Quantity("both_last", "both at the last epoch", "points", minus(ACCURACY, "last")),
    Quantity("lost", f"{LOST}, of distillation", "points", lambda d, b: lost(d)),
    Quantity("baseline_lost", f"{LOST}, of cross-entropy", "points", lambda d, b: lost(b)),
    Quantity(
        "accuracy_at_gap",
        "at equal gap, mean over those of 10 to 60 that both reach",
        "points",
        equal_gap(ACCURACY),
    ),
    *(
        Quantity(f"accuracy_at_gap_{g}", f"at a gap of {g} points", "points", of, is_shown=False)
        for g, of in ((g, at_equal("gap", [g], ACCURACY)) for g in GAPS)
    ),
    Quantity("gap", "memorization gap, last epoch", "points", minus("gap", "last")),
    *(
        Quantity(f"{key}{end}", f"one-hot {key}, {where}", "coefficient", of(f"one_hot_{key}"))
        for key in ("residual", "transition")
        for end, where, of in (
            ("", "last epoch", partial(minus, stop="last")),
            ("_at_gap", "at equal gap", equal_gap),
        )
    ),
    Quantity(
        "transition_at_residual",
        "one-hot transition, at equal residual",
        "coefficient",
        at_equal("one_hot_residual", RESIDUALS, "one_hot_transition"),
    ),
    *(
        Quantity(
            f"residual_{part}",
            f"one-hot residual, {words}, last epoch",
            "coefficient",
            minus(f"one_hot_residual_{part}", "last"),
        )
        for part, words in (
            ("low", "low band"),
            ("high", "high band"),
            ("contrast_low", "images of low contrast"),
            ("contrast_mid", "images of middle contrast"),
            ("contrast_high", "images of high contrast"),
        )
    ),
    Quantity("head_start", f"{ORDER}, of distillation", "epochs", lambda d, b: head_start(d)),
    Quantity(
        "baseline_head_start", f"{ORDER}, of cross-entropy", "epochs", lambda d, b: head_start(b)
    ),
    *(
        Quantity(f"{key}_{stop}", f"{title}, {where}", "ratio", minus(f"test_{curve}", stop))
        for key, curve, title in (
            ("delta", "energy_share", "Delta"),
            ("e_low", "e_low", "e_low"),
            ("e_high", "e_high", "e_high"),
        )
        for stop, where in (("last", "last epoch"), ("early", "both stopped early"))
    ),
    Quantity("delta_at_gap", "Delta, at equal gap", "ratio", equal_gap("test_energy_share")),
    Quantity("calibration", "calibration error, last epoch", "points", minus(CALIBRATION, "last")),
]


def average_at_gap(short: Run, long: Run) -> float:
    """Test accuracy of the longer training where it first has the last gap of the short one."""
    return at_level(long.gap, run_curve(long, ACCURACY), short.gap[-1])


def last_minus_average(short: Run, long: Run) -> float:
    """Test accuracy at the last epoch of the short training, minus `average_at_gap`."""
    return at(ACCURACY, "last")(short) - average_at_gap(short, long)


# Of a short training and a longer one of the same loss and seed: does each epoch of a curve of
# averaged weights stand for a training that ends there?
ANNEALING = [
    Quantity("last", "last epoch (%)", "percent", lambda s, _: at(ACCURACY, "last")(s), False),
    Quantity("last_gap", "its gap (points)", "points", lambda s, _: at("gap", "last")(s), False),
    Quantity("average", "average at that gap (%)", "percent", average_at_gap, False),
    Quantity("last_minus_average", "difference (points)", "points", last_minus_average),
]


def cell(result: dict, unit: str, sign: bool = False, n: int | None = None) -> str:
    """Mean ± half-width of an interval, with the digits of the unit; empty without a mean.

    sign: write the sign of a positive mean, too. n: the number of values that the text around says;
    another one is said in the cell. One value has no half-width.
    """
    digits = DIGITS[unit]
    if np.isnan(result["mean"]):
        return ""
    text = f"{round(result['mean'], digits) + 0.0:{'+' if sign else ''}.{digits}f}"
    if result["n"] > 1:
        text += f" ± {(result['high'] - result['low']) / 2:.{digits}f}"
    return text if result["n"] == n else f"{text} (n = {result['n']})"
