"""analysis/statistics.py: stopping, intervals and paired differences by hand and against scipy."""

import json
import math

import numpy as np
import pytest
from helpers import ROOT
from histories import find_row, make_history, make_run, three_losses
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.history_file import read_history_file
from analysis.statistics import (
    CONTRASTS,
    STOPS,
    interval,
    paired_difference,
    stopping_epochs,
    summarize,
)
from common.errors import UserError

# Two-sided 95% quantiles of Student's t, from a printed table.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=5)


def test_stopping_by_hand():
    run = make_run("cross-entropy", 0, [10.0, 50.0, 60.0, 40.0], [5.0, 30.0, 20.0, 30.0])
    assert stopping_epochs(run) == {"last": 3, "early": 1, "oracle": 2}


def test_of_equal_accuracies_the_first_epoch_counts():
    run = make_run("cross-entropy", 0, [10.0, 60.0, 60.0], [30.0, 30.0, 20.0])
    assert stopping_epochs(run) == {"last": 2, "early": 0, "oracle": 1}


def test_without_validation_images_there_is_no_early_stopping():
    run = make_run("cross-entropy", 0, [10.0, 50.0])
    assert stopping_epochs(run)["early"] is None
    del run["history"]["val_accuracy"]
    assert stopping_epochs(run)["early"] is None


@given(VALUES)
def test_intervals_against_the_formula(values):
    result = interval(values)
    mean = math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    half = T95[len(values) - 1] * math.sqrt(variance / len(values))
    assert result["n"] == len(values) and result["mean"] == pytest.approx(mean, abs=1e-9)
    assert result["low"] == pytest.approx(mean - half, rel=1e-3, abs=1e-3 * half + 1e-9)
    assert result["high"] == pytest.approx(mean + half, rel=1e-3, abs=1e-3 * half + 1e-9)


def test_a_paired_difference_by_hand():
    # Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t = 2 sqrt(3), 2 degrees of freedom.
    result = paired_difference([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    half, t = 4.303 / math.sqrt(3), 2 * math.sqrt(3)
    assert (result["n"], result["mean"]) == (3, 2)
    assert result["low"] == pytest.approx(2 - half, abs=1e-3)
    assert result["high"] == pytest.approx(2 + half, abs=1e-3)
    assert result["p"] == pytest.approx(1 - t / math.sqrt(t**2 + 2))  # closed form at 2 degrees
    assert result["p"] == pytest.approx(stats.ttest_1samp([1, 2, 3], 0).pvalue)


def test_equal_differences_and_one_seed_have_no_p():
    assert paired_difference([2.0, 3.0], [1.0, 2.0])["p"] is None
    one = paired_difference([2.0], [1.0])
    assert one == {"n": 1, "mean": 1.0, "low": None, "high": None, "p": None}


@pytest.mark.parametrize(("stop", "mean"), [("last", 42), ("early", 56), ("oracle", 56)])
def test_means_by_hand(stop, mean):
    row = find_row(
        summarize(three_losses()),
        measure="test_accuracy",
        loss="cross-entropy",
        minus_loss=None,
        stop=stop,
    )
    assert row["mean"] == mean and row["seeds"] == [0, 1] and row["n"] == 2


def test_differences_by_hand():
    rows = summarize(three_losses())
    accuracy = {"measure": "test_accuracy", "stop": "last"}
    same = find_row(rows, **accuracy, loss="self-distillation", minus_stop="last")
    assert same["mean"] == 15 and same["n"] == 2 and same["seeds"] == [0, 1]
    # Self-distillation at the last epoch, 58 and 56, against early stopping, 60 and 52.
    against = find_row(rows, **accuracy, loss="self-distillation", minus_stop="early")
    expected = paired_difference([58.0, 56.0], [60.0, 52.0])
    assert {name: against[name] for name in expected} == expected and against["mean"] == 1
    # The soft variant has one seed in common with cross-entropy: 58 against 44.
    soft = find_row(rows, **accuracy, loss="self-distillation, soft", minus_stop="last")
    assert (soft["n"], soft["seeds"], soft["mean"], soft["low"]) == (1, [1], 14, None)
    memorized = find_row(
        rows, measure="memorized", stop="last", loss="self-distillation", minus_stop="last"
    )
    assert memorized["mean"] == -20.5 and memorized["minus_loss"] == "cross-entropy"


def test_the_table_has_every_loss_stop_and_contrast():
    rows = summarize(three_losses())
    assert all((row["noise"], row["rate"]) == ("pair", 0.4) for row in rows)
    for measure in ("test_accuracy", "memorized"):
        of_measure = [row for row in rows if row["measure"] == measure]
        means = {(r["loss"], r["stop"]) for r in of_measure if r["minus_loss"] is None}
        contrasts = {(r["loss"], r["stop"], r["minus_stop"]) for r in of_measure if r["minus_loss"]}
        distilled = ("self-distillation", "self-distillation, soft")
        assert means == {(loss, s) for loss in ("cross-entropy", *distilled) for s in STOPS}
        assert contrasts == {(loss, *contrast) for loss in distilled for contrast in CONTRASTS}
        assert len(of_measure) == len(means) + len(contrasts)


def test_frequencies_are_at_the_middle_delta(study_history):
    rows = summarize(study_history)
    names = {row["measure"] for row in rows}
    learned = {f"learned_{part}_{band}" for part in ("true", "noise") for band in ("low", "high")}
    expected = {f"{name} at delta 400" for name in {"e_low", "e_high"} | learned}
    assert names >= {"test_accuracy", "memorized"} | expected
    row = find_row(
        rows, measure="e_low at delta 400", loss="cross-entropy", stop="last", minus_loss=None
    )
    errors = [
        run["frequency"]["test"]["outputs"]["e_low"][-1][1]
        for run in study_history["runs"]
        if run["loss"] == "cross-entropy"
    ]
    assert row["mean"] == pytest.approx(np.mean(errors)) and row["n"] == 2


def test_without_frequencies_and_wrong_labels_there_are_fewer_measures():
    rows = summarize(make_history(make_run("cross-entropy", 0, [1.0], [1.0])))
    assert {row["measure"] for row in rows} == {"test_accuracy"}


def test_one_seed_has_no_interval():
    one = make_history(*(run for run in three_losses()["runs"] if run["seed"] == 0))
    rows = summarize(one)
    assert rows and all(row["low"] is row["high"] is row["p"] is None for row in rows)
    assert all(row["n"] == 1 for row in rows)


def test_runs_of_two_settings_have_no_common_mean():
    first, second = make_run("cross-entropy", 0, [1.0]), make_run("cross-entropy", 1, [1.0])
    first["settings"]["lr"], second["settings"]["lr"] = 0.1, 0.2
    with pytest.raises(UserError, match="lr"):
        summarize(make_history(first, second))


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["pair40", "symmetric40", "human"])
def test_the_committed_results_have_the_numbers_of_their_summary(noise):
    folder = ROOT / "results/main" / noise
    history = read_history_file(folder / "history.json")
    expected = json.loads((folder / "summary.json").read_text())
    rows = summarize(history)
    assert history["data"] == expected["data"] and len(rows) == len(expected["rows"]) > 100
    for row, before in zip(rows, expected["rows"], strict=True):
        numbers = {name: before[name] for name in ("mean", "low", "high", "p")}
        computed = {name: row.pop(name) for name in numbers}
        missing = {name for name, value in numbers.items() if value is None}
        assert missing == {name for name, value in computed.items() if value is None}
        for name in numbers.keys() - missing:
            assert computed[name] == pytest.approx(numbers[name], rel=1e-9, abs=1e-9)
        assert row == {name: value for name, value in before.items() if name not in numbers}
