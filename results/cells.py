"""What the tables are made of: the main study's folders, a mean with its interval, differences."""

import json
from pathlib import Path

from analysis.curves import history_curve
from analysis.statistics import paired_difference, values_at_stop

ROOT = Path(__file__).parent.parent
MAIN = ROOT / "results" / "main"
NOISES = {
    "pair40": "pair flip",
    "symmetric40": "symmetric",
    "human": "human (CIFAR-10N, worse labels)",
}
CROSS_ENTROPY, DISTILLED = "cross-entropy", "self-distillation"
PREVIOUS = "self-distillation, previous epoch"


def rows_of(study: Path, noise: str) -> list[dict]:
    """The rows of a study's summary.json."""
    return json.loads((study / noise / "summary.json").read_text("utf-8"))["rows"]


def number(row: dict | None, digits: int = 1, sign: bool = False) -> str:
    """Mean ± half-width of the 95% interval, the mean alone for one draw, or nothing."""
    if row is None:
        return ""
    style = f"{'+' if sign else ''}.{digits}f"
    text = f"{row['mean']:{style}}"
    if row["low"] is None:
        return text
    return f"{text} ± {(row['high'] - row['low']) / 2:.{digits}f}"


def find(rows: list[dict], loss: str, stop: str, measure: str) -> dict | None:
    """The row of a loss's own mean."""
    for row in rows:
        name = row["measure"].split(" at delta")[0]
        key = (row["loss"], row["stop"], name, row["minus_loss"])
        if key == (loss, stop, measure, None):
            return row
    return None


def paired(runs: dict, others: dict, stop: str) -> str:
    """Test accuracy at the last epoch minus that of the same draws of another loss at a stop.

    Empty if they share no draw, or are the same runs at the same stop. Says n where the other
    loss has fewer draws.
    """
    accuracy = history_curve("test_accuracy")
    values = values_at_stop(runs, accuracy, "last")
    baseline = values_at_stop(others, accuracy, stop)
    draws = [draw for draw in values if draw in baseline]
    if not draws or values == baseline:
        return ""
    difference = paired_difference([values[d] for d in draws], [baseline[d] for d in draws])
    cell = number(difference, sign=True)
    return cell if len(draws) == len(values) else f"{cell} (n = {len(draws)})"


def markdown(head: list[str], lines: list[list[str]]) -> str:
    """A Markdown table."""
    rule = ["---"] * len(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))
