"""analysis/quantities.py: every quantity by hand, unknown where it is, and how it is written."""

import math
from dataclasses import replace

import numpy as np
import pytest
from made_runs import DELTAS, DISTILLED, make_run, with_deltas

from analysis import quantities
from analysis.quantities import ANNEALING, QUANTITIES, cell, curve_names, run_curve
from analysis.statistics import interval

NAN = float("nan")


def pair():
    """A distilled run and its baseline; the distilled one's measures are 0.5 higher."""
    distilled = make_run(DISTILLED, accuracy=(42, 66, 61), validation=(1, 3, 2), gap=(0, 10, 20))
    baseline = make_run(accuracy=(40, 60, 50), validation=(3, 2, 1), gap=(0, 20, 40))
    raised = {name: curve + 0.5 for name, curve in distilled.memorization.items()}
    for section, kind in (("test", "outputs"), ("sample", "outputs"), ("sample", "one_hot")):
        measures = distilled.frequency[section][kind]
        higher = {name: (np.array(table) + 0.5).tolist() for name, table in measures.items()}
        distilled.frequency[section][kind] = higher
    return replace(distilled, memorization=raised), baseline


EXPECTED = {
    "replace": 61 - 40,
    "add": 66 - 40,
    "both_last": 61 - 50,
    "lost": 61 - 66,
    "baseline_lost": 50 - 40,
    # Gaps of both: 10 and 20 points.
    "accuracy_at_gap": ((66 - 50) + (61 - 60)) / 2,
    "accuracy_at_gap_10": 66 - 50,
    "accuracy_at_gap_20": 61 - 60,
    "accuracy_at_gap_30": NAN,
    "accuracy_at_gap_40": NAN,
    "accuracy_at_gap_50": NAN,
    "accuracy_at_gap_60": NAN,
    "gap": 20 - 40,
    "residual": 0.5,
    "residual_at_gap": ((0.7 - 0.15) + (0.8 - 0.2)) / 2,
    "transition": 0.5,
    "transition_at_gap": ((0.7 - 0.15) + (0.8 - 0.2)) / 2,
    "transition_at_residual": NAN,  # 0.66 to 0.86 and 0.16 to 0.36
    **{f"residual_{part}": 0.5 for part in ("low", "high")},
    **{f"residual_contrast_{part}": 0.5 for part in ("low", "mid", "high")},
    "head_start": 0,
    "baseline_head_start": 0,
    **{f"{name}_last": 0.5 for name in ("delta", "e_low", "e_high")},
    # Distillation stops at epoch 2, cross-entropy at epoch 1; Delta is shown at the second delta.
    "delta_early": (0.4 + 0.5) - 0.2,
    **{f"{name}_early": (0.6 + 0.5) - 0.3 for name in ("e_low", "e_high")},
    "delta_at_gap": ((0.9 - 0.3) + (1.1 - 0.4)) / 2,
    "calibration": 0.5,
}


def test_every_quantity_by_hand():
    found = {quantity.key: quantity.of(*pair()) for quantity in QUANTITIES}
    assert found.keys() == EXPECTED.keys()
    for key, value in EXPECTED.items():
        np.testing.assert_allclose(found[key], value, err_msg=key)


def test_the_transition_at_equal_residual():
    def coefficients(residual, transition):
        named = {"one_hot_residual": np.array(residual), "one_hot_transition": np.array(transition)}
        return replace(make_run(accuracy=residual, gap=residual), memorization=named)

    (quantity,) = (q for q in QUANTITIES if q.key == "transition_at_residual")
    # At 0.1, 0.2, 0.3 and 0.4, but not at 0.5, which one run does not reach.
    first, second = coefficients((0, 0.2, 0.4), (0, 0.4, 0.6)), coefficients((0, 0.5), (0, 0.5))
    expected = ((0.2 - 0.1) + (0.4 - 0.2) + (0.5 - 0.3) + (0.6 - 0.4)) / 4
    assert quantity.of(first, second) == pytest.approx(expected)


def test_an_annealed_training_beyond_the_gaps_of_the_longer_one():
    long = make_run(accuracy=(40, 60, 50), validation=None, gap=(0, 10, 30))
    beyond = make_run(accuracy=(30, 52), validation=None, gap=(0, 31))
    assert [quantity.of(beyond, long) for quantity in ANNEALING][:2] == [52, 31]
    assert all(math.isnan(quantity.of(beyond, long)) for quantity in ANNEALING[2:])
    assert all(math.isnan(q.of(make_run(gap=None), long)) for q in ANNEALING[1:])


def test_the_list_is_one_of_distinct_names():
    keys, titles = zip(*((q.key, q.title) for q in QUANTITIES), strict=True)
    assert len(set(keys)) == len(keys) and len(set(titles)) == len(titles)
    assert all(q.unit in quantities.DIGITS for q in QUANTITIES + ANNEALING)


@pytest.mark.parametrize(
    ("lacking", "unknown"),
    [
        ({"validation": None}, {"replace", "add", "lost", "delta_early", "e_low_early"}),
        ({"gap": None}, {"gap", "accuracy_at_gap", "residual_at_gap", "accuracy_at_gap_10"}),
        ({"memorization": False}, {"residual", "calibration", "transition_at_residual"}),
        ({"frequency": False}, {"delta_last", "e_low_last", "head_start", "residual_low"}),
    ],
)
def test_what_is_not_measured_is_unknown(lacking, unknown):
    runs = [make_run(loss, **lacking) for loss in (DISTILLED, "cross-entropy")]
    found = {quantity.key: quantity.of(*runs) for quantity in QUANTITIES}
    assert unknown <= {key for key, value in found.items() if math.isnan(value)}
    known = {"both_last"} | {"residual", "delta_last"} - unknown - {"delta_early"}
    assert not any(math.isnan(found[key]) for key in known)


def test_frequencies_without_a_delta_that_filters_and_of_logits():
    run = with_deltas(make_run(), DELTAS, [1.0, 1.1, 1.9])
    assert np.isnan(run_curve(run, "test_energy_share")).all()
    assert np.isnan(run_curve(run, "sample_clean_high")).all()
    run = with_deltas(make_run(), values="logits")
    np.testing.assert_allclose(run_curve(run, "test_energy_share"), [0.2, 0.4, 0.6])
    for name in ("test_e_low", "sample_residual_low", "one_hot_residual_low"):
        assert np.isnan(run_curve(run, name)).all()


def test_which_band_is_learned_first():
    run = make_run(accuracy=(1, 2, 3), gap=(0, 1, 2))
    outputs = dict(run.frequency["sample"]["outputs"])
    outputs["clean_high"] = [[0, 0, 0.1], [0, 0, 0.4], [0, 0, 1]]  # 0.25 half way to epoch 2
    outputs["residual_low"] = [[0, 0, 0], [0, 0, 0.2], [0, 0, 0.3]]  # half way to epoch 3
    run.frequency["sample"]["outputs"] = outputs
    assert quantities.head_start(run) == pytest.approx(2.5 - 1.5)
    outputs["residual_low"] = [[0, 0, 0]] * 3
    assert math.isnan(quantities.head_start(run))


def test_curves_have_names():
    names = curve_names([make_run(), make_run(memorization=False)])
    assert {"test_accuracy", "gap", "one_hot_residual", "test_e_low"} <= set(names)
    assert not {"epoch", "lr", "seconds"} & set(names) and len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("values", "unit", "options", "text"),
    [
        ([57.0, 59.08], "percent", {"n": 2}, "58.0 ± 13.2"),
        ([57.0, 59.08], "percent", {}, "58.0 ± 13.2 (n = 2)"),
        ([58.04], "points", {"n": 1}, "58.0"),
        ([58.04], "points", {"sign": True, "n": 6}, "+58.0 (n = 1)"),
        ([0.123, 0.125], "coefficient", {"n": 2}, "0.124 ± 0.013"),
        ([-1.0, -1.2], "epochs", {"sign": True, "n": 2}, "-1.1 ± 1.3"),
        ([-0.01, -0.03], "points", {"sign": True, "n": 2}, "+0.0 ± 0.1"),
        ([-0.0001, -0.0001], "ratio", {"n": 2}, "0.000 ± 0.000"),
        ([], "points", {}, ""),
    ],
)
def test_a_cell_has_the_digits_of_its_unit(values, unit, options, text):
    assert cell(interval(values), unit, **options) == text
