"""analysis/statistics.py: stops by hand; intervals, tests and pairing against slow references."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from made_runs import DISTILLED, make_run
from scipy import stats

from analysis import statistics
from analysis.history import by_noise

# Two-sided 95% quantiles of Student's t, from a printed table.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571}
NUMBER = st.floats(-100, 100).map(lambda x: round(x, 3))
VALUES = st.lists(NUMBER, min_size=2, max_size=6)
NAN, BASE = float("nan"), "cross-entropy"


@pytest.mark.parametrize(
    ("accuracy", "validation", "stops"),
    [
        ([10, 50, 60, 40], [5, 30, 20, 29], (3, 1, 2)),
        ([10, 60, 60], [30, 30, 20], (2, 0, 1)),  # the first of equals
        ([10, 50], None, (1, None, 1)),
        ([10, 50], [5, NAN], (1, None, 1)),
    ],
)
def test_where_runs_stop(accuracy, validation, stops):
    gap = range(len(accuracy))
    run = make_run(accuracy=accuracy, validation=validation, gap=gap)
    found = tuple(statistics.stopping_epoch(run, stop) for stop in ("last", "early", "best_test"))
    assert found == stops
    for stop, epoch in zip(("last", "early", "best_test"), stops, strict=True):
        value = statistics.at_stop(run, run.gap, stop)
        assert math.isnan(value) if epoch is None else value == gap[epoch]


@given(VALUES)
def test_intervals_against_the_formula(values):
    result = statistics.interval(values)
    mean = math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    half = T95[len(values) - 1] * math.sqrt(variance / len(values))
    assert result["n"] == len(values) and result["mean"] == pytest.approx(mean, abs=1e-9)
    assert result["low"] == pytest.approx(mean - half, rel=1e-3, abs=1e-3 * half + 1e-9)
    assert result["high"] == pytest.approx(mean + half, rel=1e-3, abs=1e-3 * half + 1e-9)


def test_one_value_or_none_has_no_interval():
    for values, mean in (([2.0], 2.0), ([], NAN)):
        assert str(statistics.interval([*values, NAN])) == str(statistics.interval(values))
        result = statistics.interval(values)
        assert result["n"] == len(values)
        np.testing.assert_equal((result["mean"], result["low"], result["high"]), (mean, NAN, NAN))
        assert math.isnan(statistics.p_not_zero(values)) and math.isnan(
            statistics.p_above(values, 1)
        )


@given(VALUES, st.floats(-3, 3))
def test_p_values_against_the_t_statistic(values, bound):
    assume(np.ptp(values) > 1e-2)
    mean, error = np.mean(values), np.std(values, ddof=1) / math.sqrt(len(values))
    upper = stats.t.cdf(-(mean - bound) / error, len(values) - 1)
    assert statistics.p_above(values, bound) == pytest.approx(upper, rel=1e-9)
    two_sided = stats.ttest_rel(values, np.zeros(len(values))).pvalue
    assert statistics.p_not_zero(values) == pytest.approx(two_sided, rel=1e-9)
    both = statistics.equivalence(values, 2)
    assert both["p_not_worse"] == pytest.approx(stats.t.cdf(-(mean + 2) / error, len(values) - 1))
    assert both["p_not_better"] == pytest.approx(stats.t.cdf((mean - 2) / error, len(values) - 1))


def test_values_that_differ_by_rounding_have_no_p():
    values = [0.1 + 0.2, 0.3, 0.3]
    assert np.ptp(values) > 0 and math.isnan(statistics.p_not_zero(values))
    assert math.isnan(statistics.p_not_zero([2.0, 2.0]))


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([3.0, 3.5, 2.8, 3.1], "better"),
        ([-3.0, -3.5, -2.8, -3.1], "worse"),
        ([0.5, 0.6, 0.4, 0.5], "better, but equivalent within 2 points"),
        ([-0.5, -0.6, -0.4, -0.5], "worse, but equivalent within 2 points"),
        ([0.5, -0.6, 0.4, -0.5], "equivalent within 2 points"),
        ([4.0, -1.0, 5.0, 0.5], "not worse by more than 2 points"),
        ([-4.0, 1.0, -5.0, -0.5], "inconclusive"),
        ([9.0, -9.0], "inconclusive"),
        ([1.0], ""),
    ],
)
def test_verdicts(values, found):
    p = statistics.p_not_zero(values)
    assert statistics.verdict(np.mean(values), p, **statistics.equivalence(values)) == found
    if found == "better":  # after a correction that takes the significance away
        assert statistics.verdict(
            np.mean(values), 0.06, **statistics.equivalence(values)
        ).startswith("not worse")


def test_pairing_by_seed():
    first, second = (
        {seed: make_run(loss, seed, [seed + step], [1], [0]) for seed in seeds}
        for loss, seeds, step in ((DISTILLED, (8, 2, 3, 5), 0.5), (BASE, (2, 3, 4, 8), 0))
    )

    def of(distilled, baseline):
        assert distilled.seed == baseline.seed and distilled.loss != baseline.loss
        step = distilled.history["test_accuracy"][-1] - baseline.history["test_accuracy"][-1]
        return NAN if distilled.seed == 3 else step + distilled.seed

    assert statistics.paired(first, second, of) == {8: 8.5, 2: 2.5}
    assert statistics.paired(first, {}, of) == {}


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    np.testing.assert_equal(statistics.holm([0.5, NAN, 0.9]), [1.0, NAN, 1.0])
    assert statistics.holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=7), st.floats(0.001, 0.999))
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values, level):
    corrected = statistics.holm(p_values)
    rejected = set()
    for _ in p_values:  # the smallest first, each against level / what is left
        left = [k for k in range(len(p_values)) if k not in rejected]
        smallest = min(left, key=lambda k: p_values[k])
        if p_values[smallest] > level / len(left) * (1 + 1e-12):
            break
        rejected.add(smallest)
    assume(all(abs(p - level) > 1e-9 for p in corrected))
    assert {k for k, p in enumerate(corrected) if p <= level} == rejected
    assert all(p <= q <= 1 for p, q in zip(p_values, corrected, strict=True))


@given(st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=6), NUMBER)
def test_when_a_curve_reaches_a_level_and_another_curve_there(points, level):
    axis, curve = np.array(points).T
    epoch, expected = NAN, NAN
    for k in range(len(axis)):
        if axis[k] >= level:
            epoch = 1
            if k > 0:
                share = (level - axis[k - 1]) / (axis[k] - axis[k - 1])
                epoch, expected = k + share, (1 - share) * curve[k - 1] + share * curve[k]
            elif axis[0] == level:
                expected = curve[0]
            break
    np.testing.assert_allclose(statistics.first_epoch(axis, level), epoch)
    np.testing.assert_allclose(statistics.at_level(axis, curve, level), expected, atol=1e-6)


LR = {"lr": 0.02}
SHORT, MIDDLE, LONG = ({"epochs": epochs} for epochs in (2, 4, 9))


@pytest.mark.parametrize(
    ("runs", "baseline", "longer"),
    [
        ([(DISTILLED, LR), (BASE, {}), (BASE, LR)], f"{BASE}, lr 0.02", None),
        ([(DISTILLED, LR), (BASE, {})], None, None),
        ([(DISTILLED, {"q": 0.5, "weight": 1.0}), (BASE, {})], BASE, None),  # of the loss itself
        ([(DISTILLED, {"momentum": 0}), (BASE, {})], BASE, None),  # a flag that is gone, and off
        ([(BASE, SHORT), (BASE, LONG), (BASE, MIDDLE)], f"{BASE}, epochs 2", f"{BASE}, epochs 9"),
        ([(BASE, LONG), (BASE, SHORT)], f"{BASE}, epochs 9", None),
        ([(DISTILLED, SHORT), (BASE, LONG)], None, None),
        ([(BASE, SHORT), (BASE, LONG | LR)], f"{BASE}, lr 0.05, epochs 2", None),
    ],
)
def test_what_a_series_is_compared_with(runs, baseline, longer):
    runs = [make_run(loss, epochs=flags.get("epochs"), settings=flags) for loss, flags in runs]
    (series,) = by_noise(runs).values()
    title = next(title for title, members in series.items() if runs[0] in members.values())
    assert (statistics.baseline_of(series, title), statistics.longer_of(series, title)) == (
        baseline,
        longer,
    )
