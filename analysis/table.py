"""The table of a study: summary.json, summary.csv, and as text for a reader."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from analysis.curves import ENOUGH_MASS, delta_index, middle_delta
from analysis.frequency_file import ALONE
from analysis.statistics import STOPS, stopping_epochs
from common.files import write_json, write_text

COLUMNS = (
    "noise",
    "rate",
    "network",
    "varies",
    "loss",
    "stop",
    "minus_loss",
    "minus_stop",
    "measure",
)
COLUMNS += ("n", "seeds", "mean", "low", "high", "p")
PERCENT = ("test_accuracy", "memorized", "gap", "gap_error", "confidence", "test_confidence")
PERCENT += ("test_calibration_error",)
Table = dict[str, dict[str, dict]]  # line -> column -> row of the summary


def write_summary(folder: Path, name: str, data: dict, rows: Sequence[dict]) -> list[Path]:
    """Write <name>.json and <name>.csv into the folder; returns their paths."""
    paths = [folder / f"{name}.{suffix}" for suffix in ("json", "csv")]
    write_json(paths[0], {"data": data, "rows": list(rows)})
    write_text(paths[1], as_csv(rows))
    return paths


def as_csv(rows: Sequence[dict]) -> str:
    """The rows as CSV; the seeds are in one field, and a missing value is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "seeds": " ".join(map(str, row["seeds"]))})
    return text.getvalue()


def run_line(run: dict) -> str:
    """Test accuracy of one run of history.json, in percent, by stopping rule."""
    accuracy = run["history"]["test_accuracy"]
    stops = [
        f"{STOPS[stop]} {accuracy[epoch]:.2f}% at epoch {epoch + 1}"
        for stop, epoch in stopping_epochs(run).items()
        if epoch is not None
    ]
    return f"{run['run']}: test accuracy {', '.join(stops)}"


def as_text(rows: Sequence[dict]) -> str:
    """The tables for a reader: accuracy at every stop, other measures at the last epoch."""
    first = rows[0]
    seeds = sorted({seed for row in rows for seed in row["seeds"]}, key=str)
    spread = f"mean ± half-width of the 95% t-interval over {first['varies']}"
    title = (
        f"{first['noise']} noise, {100 * first['rate']:.4g}% wrong labels, {first['network']}, "
        f"n = {len(seeds)} (seeds {', '.join(map(str, seeds))}): "
        f"{spread if len(seeds) > 1 else 'one seed, no interval'}"
    )
    tables = {**accuracy_tables(rows), **measure_tables(rows)}
    lines = [title]
    for head, table in tables.items():
        lines += format_table(head, table)
    return "\n".join(lines)


def filter_line(history: dict) -> str:
    """How far the filter of the tables reaches on the training sample; empty without frequencies.

    A median kernel mass below ENOUGH_MASS is marked: such a filter leaves most images as they are.
    """
    frequency = history["runs"][0].get("frequency")
    if frequency is None or "alone" not in frequency["probe"]:
        return ""
    section = frequency["probe"]
    column = delta_index(section["delta"], None, default=middle_delta(section["delta"]))
    mass = section["weight"][column]
    mark = "" if mass >= ENOUGH_MASS else " (too few: this delta filters hardly anything)"
    return (
        f"\nat delta {section['delta'][column]:g} a filtered value is a mean of {mass:.3g} images "
        f"in the median{mark}; {100 * section['alone'][column]:.2g}% of the images have a kernel "
        f"mass below {ALONE}"
    )


def accuracy_tables(rows: Sequence[dict]) -> dict[str, Table]:
    """Test accuracy by loss (line) and stop (column), and its differences."""
    base = baseline(rows)
    tables: dict[str, Table] = {}
    for row in rows:
        if row["measure"] != "test_accuracy":
            continue
        stop, minus = row["stop"], row["minus_stop"]
        heads = {"test accuracy (%)": stop} if minus is None else {}
        if minus == stop:
            heads[f"points above {base}, both at their"] = stop
        if minus is not None and stop == "last":
            heads[f"at the last epoch, points above {base} at its"] = minus
        for head, column in heads.items():
            tables.setdefault(head, {}).setdefault(row["loss"], {})[STOPS[column]] = row
    return tables


def measure_tables(rows: Sequence[dict]) -> dict[str, Table]:
    """The other measures at the last epoch by loss (column), and minus the baseline's."""
    base = baseline(rows)
    tables: dict[str, Table] = {}
    for row in rows:
        if row["measure"] == "test_accuracy" or row["stop"] != "last":
            continue
        if row["minus_stop"] not in (None, "last"):
            continue
        head = "at the last epoch" if row["minus_stop"] is None else f"the same, minus {base}"
        measure = row["measure"] + (" (%)" if row["measure"] in PERCENT else "")
        tables.setdefault(head, {}).setdefault(measure, {})[row["loss"]] = row
    return tables


def answer_text(rows: Sequence[dict]) -> str:
    """The answer for a reader: one table per loss, one line per quantity, one column per noise."""
    lines = []
    for loss in dict.fromkeys(row["loss"] for row in rows):
        table: Table = {}
        for row in rows:
            if row["loss"] == loss:
                line = table.setdefault(row["quantity"], {})
                line[row["noise"]] = row | {"measure": "share", "minus_loss": "cross-entropy"}
                if "(share)" not in row["quantity"]:
                    line[row["noise"]]["measure"] = "test_accuracy"
        lines += format_table(f"{loss} minus cross-entropy, points unless noted", table)
    varies = "; ".join(dict.fromkeys(row["varies"] for row in rows))
    counts = ", ".join(dict.fromkeys(f"{row['noise']}: n = {row['n']}" for row in rows))
    holm = ", ".join(
        f"{row['noise']} {row['loss']} {row['p_holm']:.2g}"
        for row in rows
        if row["p_holm"] is not None
    )
    return "\n".join(
        [
            *lines,
            "",
            f"95% t-intervals over {varies}; {counts}",
            f"Holm over the noises, primary quantity: p = {holm or 'none (n = 1)'}",
        ]
    )


def baseline(rows: Sequence[dict]) -> str | None:
    """The loss that the others are compared with; None if there is one loss only."""
    return next((row["minus_loss"] for row in rows if row["minus_loss"]), None)


def format_table(head: str, table: Table) -> list[str]:
    """The lines of a table, its columns aligned."""
    columns = list(dict.fromkeys(column for line in table.values() for column in line))
    cells = [[head, *columns]]
    for name, line in table.items():
        values = [format_row(line[column]) if column in line else "" for column in columns]
        cells.append([f"  {name}", *values])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )
    return ["", *(line.rstrip() for line in padded)]


def format_row(row: dict) -> str:
    """Mean and half-width of its interval, as in 58.1 ± 4.6; a difference has a sign and its p."""
    digits = ".1f" if row["measure"] in PERCENT else ".3f"
    sign = "+" if row["minus_loss"] else ""
    text = f"{row['mean']:{sign}{digits}}"
    if row["low"] is None:
        return f"{text} (n = 1)"
    p = "" if row["p"] is None else f", p = {row['p']:.2g}"
    return f"{text} ± {(row['high'] - row['low']) / 2:{digits}}{p}"
