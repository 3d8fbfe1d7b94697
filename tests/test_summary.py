"""summary.py: stopping, intervals and paired differences by hand and against scipy."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import runs
import summary

# Two-sided 95% quantiles of Student's t, from a printed table.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
VALUES = st.lists(st.floats(-100, 100), min_size=2, max_size=5)


def run_of(loss, seed, test, val=None, memorized=None):
    """A run of history.json with these curves."""
    history = {"test_accuracy": test, "val_accuracy": val or [None] * len(test)}
    history["probe_memorized"] = memorized or [None] * len(test)
    settings = {"dis": int(loss != "cross-entropy")}
    content = {"run": f"{loss}{seed}", "loss": loss, "seed": seed, "network": "small_cnn"}
    return {**content, "settings": settings, "history": history, "frequency": None}


def history_of(*collected):
    data = {"noise": "pair", "rate_found": 0.4, "name": "small"}
    return {"data": data, "runs": list(collected)}


def test_stopping_by_hand():
    run = run_of("cross-entropy", 0, [10.0, 50.0, 60.0, 40.0], [5.0, 30.0, 20.0, 30.0])
    assert summary.stopping_epochs(run) == {"last": 3, "early": 1, "oracle": 2}
    line = summary.run_line(run)
    for part in (
        "last epoch 40.00% at epoch 4",
        "early stopping 50.00% at epoch 2",
        "(oracle) 60.00% at epoch 3",
    ):
        assert part in line
    without = run_of("cross-entropy", 0, [10.0, 50.0])
    assert summary.stopping_epochs(without)["early"] is None
    assert "early" not in summary.run_line(without)
    del without["history"]["val_accuracy"]
    assert summary.stopping_epochs(without)["early"] is None


@given(VALUES)
def test_interval_against_the_formula(values):
    found = summary.interval(values)
    mean = math.fsum(values) / len(values)
    variance = math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1)
    half = T95[len(values) - 1] * math.sqrt(variance / len(values))
    assert found["n"] == len(values) and found["mean"] == pytest.approx(mean, abs=1e-9)
    assert found["low"] == pytest.approx(mean - half, rel=1e-3, abs=1e-3 * half + 1e-9)
    assert found["high"] == pytest.approx(mean + half, rel=1e-3, abs=1e-3 * half + 1e-9)


def test_a_paired_difference_by_hand():
    # Differences 1, 2, 3: mean 2, standard error 1/sqrt(3), t = 2 sqrt(3), 2 degrees of freedom.
    found = summary.paired([11.0, 22.0, 33.0], [10.0, 20.0, 30.0])
    half = 4.303 / math.sqrt(3)
    assert (found["n"], found["mean"]) == (3, 2)
    assert (found["low"], found["high"]) == (
        pytest.approx(2 - half, abs=1e-3),
        pytest.approx(2 + half, abs=1e-3),
    )
    t = 2 * math.sqrt(3)
    assert found["p"] == pytest.approx(1 - t / math.sqrt(t**2 + 2))  # closed form at 2 degrees
    assert found["p"] == pytest.approx(stats.ttest_1samp([1, 2, 3], 0).pvalue)


def test_equal_differences_and_one_seed_have_no_p():
    assert summary.paired([2.0, 3.0], [1.0, 2.0])["p"] is None
    one = summary.paired([2.0], [1.0])
    assert one == {"n": 1, "mean": 1.0, "low": None, "high": None, "p": None}


PLAIN = [([50.0, 60.0, 40.0], [20.0, 30.0, 25.0]), ([52.0, 51.0, 44.0], [30.0, 20.0, 10.0])]
DISTILLED = [([40.0, 55.0, 58.0], [1.0, 2.0, 3.0]), ([42.0, 59.0, 56.0], [1.0, 2.0, 3.0])]


def three_losses():
    return history_of(
        *(run_of("cross-entropy", k, *PLAIN[k], memorized=[1.0, 2.0, 30.0 + k]) for k in (0, 1)),
        *(run_of("self-distillation", k, *DISTILLED[k], [1.0, 2.0, 10.0]) for k in (0, 1)),
        run_of("self-distillation, soft", 1, *DISTILLED[0], [1.0, 2.0, 20.0]),
    )


def row(rows, **wanted):
    (found,) = [r for r in rows if all(r[key] == value for key, value in wanted.items())]
    return found


def test_rows_by_hand():
    rows = summary.summarize(three_losses())
    accuracy = {"measure": "test_accuracy"}
    plain = {**accuracy, "loss": "cross-entropy", "minus_loss": None}
    assert row(rows, **plain, stop="last")["mean"] == 42
    assert row(rows, **plain, stop="early")["mean"] == 56  # 60 and 52
    assert row(rows, **plain, stop="oracle")["mean"] == 56
    distilled = {**accuracy, "loss": "self-distillation"}
    same = row(rows, **distilled, stop="last", minus_stop="last")
    assert same["mean"] == 15 and same["n"] == 2 and same["seeds"] == [0, 1]
    # Self-distillation unstopped, 58 and 56, against early stopping, 60 and 52.
    against = row(rows, **distilled, stop="last", minus_stop="early")
    expected = summary.paired([58.0, 56.0], [60.0, 52.0])
    assert {key: against[key] for key in expected} == expected and against["mean"] == 1
    soft = row(rows, **accuracy, loss="self-distillation, soft", stop="last", minus_stop="last")
    assert (soft["n"], soft["seeds"], soft["mean"], soft["low"]) == (1, [1], 14, None)
    memorized = {"measure": "memorized", "stop": "last"}
    found = row(rows, **memorized, loss="self-distillation", minus_stop="last")
    assert found["mean"] == -20.5 and found["minus_loss"] == "cross-entropy"
    assert all((r["noise"], r["rate"]) == ("pair", 0.4) for r in rows)


def test_the_text_says_n_and_what_is_compared():
    text = summary.as_text(summary.summarize(three_losses()))
    head, *blocks = text.split("\n\n")
    assert head.startswith("pair noise, 40% wrong labels, small_cnn, n = 2 (seeds 0, 1)")
    tables = {}
    for part in blocks:
        title, *lines = part.splitlines()
        columns = [title.index(stop) for stop in summary.STOPS.values() if stop in title]
        tables[title.split("  ")[0]] = columns, {line.split("  ")[1]: line for line in lines}
    columns, lines = tables["unstopped, points above cross-entropy at its"]
    against = summary.paired([58.0, 56.0], [60.0, 52.0])
    interval = f"[{against['low']:+.1f}, {against['high']:+.1f}], p = {against['p']:.2g}"
    assert lines["self-distillation"][columns[1] :].startswith(f"+1.0 {interval}")
    columns, lines = tables["test accuracy (%)"]
    assert lines["cross-entropy"][columns[1] :].startswith("56.0 [")
    assert lines["self-distillation, soft"][columns[0] :].startswith("58.0 (n = 1)")
    _, lines = tables["the same, minus cross-entropy"]
    assert "-20.5 [" in lines["memorized (%)"]


def test_one_seed_says_so_without_an_interval():
    one = history_of(*(r for r in three_losses()["runs"] if r["seed"] == 0))
    text = summary.as_text(summary.summarize(one))
    assert "n = 1" in text and "[" not in text and " p = " not in text
    assert "56.0 (n = 1)" not in text and "60.0 (n = 1)" in text
    assert all(r["low"] is None and r["p"] is None for r in summary.summarize(one))


def test_json_and_csv_hold_the_same_rows(collected):
    content = json.loads(Path("summary.json").read_text())
    rows = content["rows"]
    assert content["data"]["name"] == "small" and list(rows[0]) != []
    with open("summary.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(rows) and tuple(table[0]) == summary.COLUMNS
    for line, found in zip(table, rows, strict=True):
        for name in summary.COLUMNS:
            value = found[name]
            if name == "seeds":
                value = " ".join(map(str, value))
            assert line[name] == ("" if value is None else str(value))
    # Frequencies at the last epoch, at the second of the two deltas.
    found = row(
        rows, measure="e_low at delta 400", loss="cross-entropy", stop="last", minus_loss=None
    )
    errors = [
        run["frequency"]["test"]["outputs"]["e_low"][-1][1]
        for run in collected["runs"]
        if run["loss"] == "cross-entropy"
    ]
    assert found["mean"] == pytest.approx(np.mean(errors)) and found["n"] == 2
    names = {r["measure"] for r in rows}
    assert {"memorized", "e_high at delta 400", "learned_noise_low at delta 400"} <= names


def test_without_frequencies_and_wrong_labels_there_are_fewer_measures():
    rows = summary.summarize(history_of(run_of("cross-entropy", 0, [1.0], [1.0])))
    assert {r["measure"] for r in rows} == {"test_accuracy"}


def test_runs_of_two_settings_have_no_common_mean():
    first, second = run_of("cross-entropy", 0, [1.0]), run_of("cross-entropy", 1, [1.0])
    first["settings"]["lr"], second["settings"]["lr"] = 0.1, 0.2
    with pytest.raises(runs.RunError, match="lr"):
        summary.summarize(history_of(first, second))
