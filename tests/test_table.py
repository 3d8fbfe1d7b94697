"""analysis/table.py: summary.json, summary.csv, and the tables for a reader."""

import csv
import json
from pathlib import Path

import pytest
from helpers import ROOT
from histories import find_row, make_history, make_run, three_losses

from analysis.history_file import read_history_file
from analysis.statistics import STOPS, paired_difference, summarize
from analysis.table import (
    COLUMNS,
    accuracy_tables,
    as_text,
    filter_line,
    format_row,
    format_table,
    measure_tables,
    run_line,
)

DISTILLED = ["self-distillation", "self-distillation, soft"]
LOSSES = ["cross-entropy", *DISTILLED]


@pytest.fixture
def rows():
    return summarize(three_losses())


def test_the_line_of_a_run_has_every_stop():
    run = make_run("cross-entropy", 0, [10.0, 50.0, 60.0, 40.0], [5.0, 30.0, 20.0, 30.0])
    assert run_line(run) == (
        "cross-entropy0: test accuracy last epoch 40.00% at epoch 4, early stopping 50.00% at "
        "epoch 2, best test epoch (oracle) 60.00% at epoch 3"
    )
    assert "early" not in run_line(make_run("cross-entropy", 0, [10.0, 50.0]))


def test_accuracy_tables_hold_every_row_of_accuracy(rows):
    tables = accuracy_tables(rows)
    assert list(tables) == [
        "test accuracy (%)",
        "points above cross-entropy, both at their",
        "at the last epoch, points above cross-entropy at its",
    ]
    means, both, last = tables.values()
    assert list(means) == LOSSES and list(both) == list(last) == DISTILLED
    place = {"measure": "test_accuracy"}
    for stop, title in STOPS.items():
        for loss in LOSSES:
            expected = find_row(rows, **place, loss=loss, stop=stop, minus_stop=None)
            assert means[loss][title] is expected
        for loss in DISTILLED:
            expected = find_row(rows, **place, loss=loss, stop=stop, minus_stop=stop)
            assert both[loss][title] is expected
            expected = find_row(rows, **place, loss=loss, stop="last", minus_stop=stop)
            assert last[loss][title] is expected


def test_measure_tables_hold_the_other_measures_at_the_last_epoch(rows):
    tables = measure_tables(rows)
    assert list(tables) == ["at the last epoch", "the same, minus cross-entropy"]
    means, differences = tables.values()
    assert list(means) == list(differences) == ["memorized (%)"]
    assert list(means["memorized (%)"]) == LOSSES
    assert list(differences["memorized (%)"]) == DISTILLED
    assert differences["memorized (%)"]["self-distillation"] == find_row(
        rows, measure="memorized", loss="self-distillation", stop="last", minus_stop="last"
    )


def make_row(mean, half=None, measure="test_accuracy", minus_loss=None, p=None):
    low, high = (None, None) if half is None else (mean - half, mean + half)
    row = {"mean": mean, "low": low, "high": high, "p": p}
    return {**row, "measure": measure, "minus_loss": minus_loss}


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (make_row(58.04, 4.52), "58.0 ± 4.5"),
        (make_row(58.04), "58.0 (n = 1)"),
        (make_row(0.12345, 0.0123, "e_low at delta 400"), "0.123 ± 0.012"),
        (make_row(1.04, 0.5, minus_loss="cross-entropy", p=0.01234), "+1.0 ± 0.5, p = 0.012"),
        (make_row(-20.5, 6.32, "memorized", "cross-entropy", 0.2), "-20.5 ± 6.3, p = 0.2"),
        (make_row(14.0, minus_loss="cross-entropy"), "+14.0 (n = 1)"),
        (make_row(1.0, 0.0, minus_loss="cross-entropy"), "+1.0 ± 0.0"),
    ],
)
def test_a_cell_has_mean_and_half_of_the_interval(row, text):
    assert format_row(row) == text


def test_columns_are_aligned():
    row, other = make_row(1.0), make_row(22.0)
    table = {"a": {"first": row, "second": other}, "long name": {"second": other}}
    assert format_table("head", table) == [
        "",
        "head         first        second",
        "  a          1.0 (n = 1)  22.0 (n = 1)",
        "  long name               22.0 (n = 1)",
    ]


def test_the_text_says_n_and_has_every_table(rows):
    text = as_text(rows)
    title, *_ = text.splitlines()
    assert title == (
        "pair noise, 40% wrong labels, small_cnn, n = 2 (seeds 0, 1): mean ± half-width of the 95% "
        f"t-interval over {rows[0]['varies']}"
    )
    tables = accuracy_tables(rows) | measure_tables(rows)
    expected = [line for head, table in tables.items() for line in format_table(head, table)]
    assert text.splitlines()[1:] == expected
    # Distillation at the last epoch, 58 and 56, minus early stopping, 60 and 52.
    against = paired_difference([58.0, 56.0], [60.0, 52.0])
    half = (against["high"] - against["low"]) / 2
    assert f"+1.0 ± {half:.1f}, p = {against['p']:.2g}" in text


def test_one_seed_is_named_without_an_interval():
    runs = [run for run in three_losses()["runs"] if run["seed"] == 0]
    text = as_text(summarize(make_history(*runs)))
    assert "n = 1 (seeds 0): one seed, no interval" in text
    assert "±" not in text and " p = " not in text
    assert "60.0 (n = 1)" in text and "56.0 (n = 1)" not in text


def test_one_loss_has_no_differences():
    rows = summarize(make_history(*three_losses()["runs"][:2]))
    assert list(accuracy_tables(rows)) == ["test accuracy (%)"]
    assert list(measure_tables(rows)) == ["at the last epoch"]
    assert "None" not in as_text(rows)


def test_json_and_csv_hold_the_same_rows(study_history):
    content = json.loads(Path("summary.json").read_text())
    assert content["data"] == study_history["data"]
    assert content["rows"] == summarize(study_history)
    with open("summary.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(content["rows"]) and tuple(lines[0]) == COLUMNS
    for line, row in zip(lines, content["rows"], strict=True):
        assert set(row) == set(COLUMNS)
        for name, value in row.items():
            value = " ".join(map(str, value)) if name == "seeds" else value
            assert line[name] == ("" if value is None else str(value))


def test_the_printed_table_is_that_of_the_runs(study_history, script):
    _, out, _ = script("collect_history")
    assert as_text(summarize(study_history)) in out


def test_how_far_the_filter_reaches():
    history = read_history_file(ROOT / "results/main/pair40/history.json")
    section = history["runs"][0]["frequency"]["probe"]
    column = section["delta"].index(564.0)
    line = filter_line(history)
    assert f"at delta 564 a filtered value is a mean of {section['weight'][column]:.3g} " in line
    assert f"{100 * section['alone'][column]:.2g}% of the images" in line and "too few" not in line
    section["weight"][column] = 1.9
    assert "too few" in filter_line(history)
    history["runs"][0]["frequency"] = None
    assert filter_line(history) == ""
