"""Stopping rules, what is compared with what, intervals over seeds, and tests of differences.

A value that does not exist is NaN and is left out, so that every result says its n.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from scipy.special import stdtr, stdtrit  # Student's t: its distribution, and the inverse

from analysis.history import CROSS_ENTROPY, NAN, Run, Series, differing_settings

STOPS = {"last": "last epoch", "early": "stopped early", "best_test": "best test epoch"}
LEVEL = 0.05  # of every test; intervals have 1 - LEVEL
MARGIN = 2.0  # points of test accuracy that count as no difference, by results/PLAN.md


def stopping_epoch(run: Run, stop: str) -> int | None:
    """The index of the epoch that a rule of STOPS chooses, the first of equals.

    early: the best accuracy on held-out noisy labels, None without them; best_test: that on test
    images, which nobody knows in practice.
    """
    if stop == "last":
        return len(run.history["test_accuracy"]) - 1
    curve = run.history["val_accuracy" if stop == "early" else "test_accuracy"]
    return None if np.isnan(curve).any() else int(np.argmax(curve))


def at_stop(run: Run, curve: np.ndarray, stop: str) -> float:
    """The value of the run's curve (epochs,) where a rule stops it; NaN if that is unknown."""
    epoch = stopping_epoch(run, stop)
    return NAN if epoch is None else float(curve[epoch])


def first_epoch(curve: np.ndarray, level: float) -> float:
    """The epoch, from 1, in which a curve (epochs,) first reaches `level`; NaN if it never does.

    Linear between that epoch and the one before; 1 if the first epoch reaches it already.
    """
    reached = np.flatnonzero(curve >= level)
    if not len(reached):
        return NAN
    k = int(reached[0])
    return float(k + 1 if k == 0 else k + (level - curve[k - 1]) / (curve[k] - curve[k - 1]))


def at_level(axis: np.ndarray, curve: np.ndarray, level: float) -> float:
    """A curve (epochs,) where another one, `axis` (epochs,), first reaches `level`.

    Linear between epochs. NaN if the axis never reaches the level, or is above it from the start.
    """
    epoch = first_epoch(axis, level)
    if np.isnan(epoch) or axis[0] > level:
        return NAN
    return float(np.interp(epoch, np.arange(1, len(curve) + 1), curve))


def baseline_of(series: Series, title: str) -> str | None:
    """The title of cross-entropy under the setting of the series `title`, or None."""
    first = {other: next(iter(runs.values())) for other, runs in series.items()}
    for other, run in first.items():
        if run.loss == CROSS_ENTROPY and not differing_settings([run, first[title]]):
            return other
    return None


def longer_of(series: Series, title: str) -> str | None:
    """The title of the longest training of the loss and setting of the series `title`, or None."""
    first = {other: next(iter(runs.values())) for other, runs in series.items()}
    epochs = {
        other: run.epochs
        for other, run in first.items()
        if run.loss == first[title].loss and differing_settings([run, first[title]]) == ["epochs"]
    }
    longest = max(epochs, key=epochs.get, default=title)
    return longest if first[longest].epochs > first[title].epochs else None


def paired(
    distilled: Mapping[int | str, Run],
    baseline: Mapping[int | str, Run],
    of: Callable[[Run, Run], float],
) -> dict[int | str, float]:
    """seed -> of(distilled run, baseline run), over the seeds that both have and with a value."""
    values = {seed: of(run, baseline[seed]) for seed, run in distilled.items() if seed in baseline}
    return {seed: value for seed, value in values.items() if not np.isnan(value)}


def interval(values: Iterable[float]) -> dict[str, float]:
    """Mean of the known values and its 95% t-interval: n, mean, low, high; NaN where undefined."""
    values = [value for value in values if not np.isnan(value)]
    n = len(values)
    mean = float(np.mean(values)) if n else NAN
    if n < 2:
        return {"n": n, "mean": mean, "low": NAN, "high": NAN}
    half = float(stdtrit(n - 1, 1 - LEVEL / 2) * np.std(values, ddof=1) / np.sqrt(n))
    return {"n": n, "mean": mean, "low": mean - half, "high": mean + half}


def p_above(values: Sequence[float], bound: float) -> float:
    """p of the one-sided t-test that the mean of values (n,) is above `bound`.

    NaN for fewer than two values, and for values that differ by rounding errors only.
    """
    if len(values) < 2 or np.ptp(values) <= 1e-9 * max(1, np.max(np.abs(values))):
        return NAN
    n, error = len(values), np.std(values, ddof=1) / np.sqrt(len(values))
    return float(stdtr(n - 1, (bound - np.mean(values)) / error))


def p_not_zero(values: Sequence[float]) -> float:
    """p of the two-sided t-test that the mean of values (n,) is not 0; NaN as in `p_above`."""
    p = 2 * min(p_above(values, 0), p_above(np.negative(values), 0))
    return p if np.isnan(p) else min(p, 1.0)


def equivalence(values: Sequence[float], margin: float = MARGIN) -> dict[str, float]:
    """p of two one-sided t-tests (Schuirmann, 1987) of differences (n,); NaN as in `p_above`.

    p_not_worse: that the mean is above -margin; p_not_better: that it is below margin.
    """
    p_not_better = p_above(np.negative(values), -margin)
    return {"p_not_worse": p_above(values, -margin), "p_not_better": p_not_better}


def verdict(mean: float, p: float, p_not_worse: float, p_not_better: float) -> str:
    """What a difference in points has shown.

    p: of the test against 0, corrected where it is one of several; the others: of `equivalence`.
    """
    if np.isnan(p):
        return ""
    found = [] if p >= LEVEL else ["better" if mean > 0 else "worse"]
    if p_not_worse < LEVEL and p_not_better < LEVEL:
        found.append(f"equivalent within {MARGIN:g} points")
    elif p_not_worse < LEVEL and not found:
        found.append(f"not worse by more than {MARGIN:g} points")
    return ", but ".join(found) or "inconclusive"


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number by Holm's step-down method; NaN stays NaN.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    known = sorted((p, k) for k, p in enumerate(p_values) if not np.isnan(p))
    corrected, largest = [NAN] * len(p_values), 0.0
    for rank, (p, k) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        corrected[k] = largest
    return corrected
