"""studies/closing.py: the three lines that end a study, from the summary of real runs."""

import json
from pathlib import Path

import numpy as np
import pytest

from common.files import write_json
from studies.closing import closing_lines

SUMMARY = Path("summary.json")
PICTURES = [Path("figures/a") / name for name in ("accuracy.png", "overview.png", "loss.png")]


@pytest.fixture
def rows(study_history, script):
    """The rows of the summary of a copy of `collected_study`."""
    assert script("collect_history", "--out", "history.json")[0] == 0
    return json.loads(SUMMARY.read_text())["rows"]


def test_the_numbers_are_those_of_the_last_epoch(study_history, rows):
    first, second, third = closing_lines(SUMMARY, PICTURES)
    for line, name in ((first, "test_accuracy"), (second, "sample_memorized")):
        last = {
            loss: np.mean(
                [r["history"][name][-1] for r in study_history["runs"] if r["loss"] == loss]
            )
            for loss in ("cross-entropy", "self-distillation")
        }
        for loss, mean in last.items():
            assert f"{loss} {mean:.1f} ± " in line
        difference = last["self-distillation"] - last["cross-entropy"]
        assert f"difference {difference:+.1f} ± " in line and line.endswith(" points")
    assert third.startswith("Open figures/a/overview.png: accuracy and memorization")
    third = closing_lines(SUMMARY, [PICTURES[0], PICTURES[2]])[2]
    assert third.startswith("Open figures/a/accuracy.png: accuracy,")


def test_one_seed_has_no_interval(rows):
    write_json(SUMMARY, {"rows": [row | {"low": None, "high": None} for row in rows]})
    lines = closing_lines(SUMMARY, PICTURES)
    assert len(lines) == 3 and not any("±" in line for line in lines)


def test_without_wrong_labels_nothing_is_said_of_them(rows):
    write_json(SUMMARY, {"rows": [row for row in rows if row["measure"] != "memorized"]})
    assert ["accuracy" in line for line in closing_lines(SUMMARY, PICTURES)] == [True, True]


def test_other_numbers_of_losses_end_without_these_lines(rows):
    assert closing_lines(Path("nothing.json"), PICTURES) == []
    for losses in (["cross-entropy"], ["self-distillation"]):
        write_json(SUMMARY, {"rows": [row for row in rows if row["loss"] in losses]})
        assert closing_lines(SUMMARY, PICTURES) == []
    third = [row | {"loss": "another"} for row in rows if row["loss"] == "self-distillation"]
    write_json(SUMMARY, {"rows": rows + third})
    assert closing_lines(SUMMARY, PICTURES) == []
