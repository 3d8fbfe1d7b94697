"""What a study has shown, in three lines: from summary.json, which collect_history.py writes."""

from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.files import read_json

BASELINE = "cross-entropy"
MEASURES = {"test_accuracy": "test accuracy", "memorized": "wrong labels memorized"}
# The figure to open: the first of these that was drawn.
PICTURES = {
    "overview.png": "accuracy and memorization, epoch by epoch",
    "accuracy.png": "accuracy, epoch by epoch",
}


def closing_lines(summary: Path, pictures: Sequence[Path]) -> list[str]:
    """Accuracy and memorization at the last epoch, and the picture to open.

    Empty unless the summary compares cross-entropy with one other loss. pictures: the study's
    figures.
    """
    try:
        rows = read_json(summary, "make it with collect_history.py")["rows"]
    except (UserError, KeyError):
        return []
    others = {row["loss"] for row in rows} - {BASELINE}
    if len(others) != 1 or all(row["loss"] != BASELINE for row in rows):
        return []
    lines = [comparison(rows, measure, *others) for measure in MEASURES]
    drawn = {path.name: path for path in pictures}
    lines += [f"Open {drawn[name]}: {PICTURES[name]}" for name in PICTURES if name in drawn][:1]
    return [line for line in lines if line]


def comparison(rows: Sequence[dict], measure: str, other: str) -> str:
    """Both losses' means of a measure in percent and their difference; empty without a value."""
    by_losses = {
        (row["loss"], row["minus_loss"]): row
        for row in rows
        if row["measure"] == measure and row["stop"] == "last"
        if row["minus_stop"] in (None, "last")
    }
    keys = (BASELINE, None), (other, None), (other, BASELINE)
    if not all(key in by_losses for key in keys):
        return ""
    first, second, difference = (by_losses[key] for key in keys)
    return (
        f"Last epoch, {MEASURES[measure]}: {BASELINE} {number(first)}%, {other} "
        f"{number(second)}%, difference {number(difference, '+')} points"
    )


def number(row: dict, sign: str = "") -> str:
    """Mean and half-width of its 95% interval, as in 58.1 ± 4.6; for one seed the mean alone."""
    text = f"{row['mean']:{sign}.1f}"
    return text if row["low"] is None else f"{text} ± {(row['high'] - row['low']) / 2:.1f}"
