"""Where each run would be stopped, and what that gives: means over seeds, with their intervals.

Three ways to stop are compared: the last epoch; early stopping at the epoch of the best accuracy on
held-out images with wrong labels, which is what one can really do; and the best test epoch, which
only an oracle knows. Intervals are Student's t at 95% over seeds; differences are paired: two runs
of one seed share labels, start and order. Of one seed there is no interval.
"""

import csv
import io
from collections.abc import Sequence

import numpy as np
from scipy import stats

import runs
from curves import (
    Curve,
    by_loss,
    column_of,
    measured,
    middle_delta,
    of_frequency,
    of_history,
)

STOPS = {
    "last": "last epoch",
    "early": "early stopping",
    "oracle": "best test epoch (oracle)",
}
COLUMNS = ("noise", "rate", "network", "loss", "stop", "minus_loss", "minus_stop", "measure")
COLUMNS += ("n", "seeds", "mean", "low", "high", "p")


def stopping_epochs(run: dict) -> dict[str, int | None]:
    """The index of the epoch that each way to stop takes; the first of several that are equal.

    `early` is None for a run without validation images.
    """
    history = run["history"]
    validation = history.get("val_accuracy") or [None]
    return {
        "last": len(history["test_accuracy"]) - 1,
        "early": None if validation[0] is None else int(np.argmax(validation)),
        "oracle": int(np.argmax(history["test_accuracy"])),
    }


def run_line(run: dict) -> str:
    """Test accuracy of one run of history.json, in percent, wherever it could be stopped."""
    accuracy = run["history"]["test_accuracy"]
    stopped = [
        f"{STOPS[stop]} {accuracy[epoch]:.2f}% at epoch {epoch + 1}"
        for stop, epoch in stopping_epochs(run).items()
        if epoch is not None
    ]
    return f"{run['run']}: test accuracy {', '.join(stopped)}"


def measures(history: dict) -> dict[str, Curve]:
    """The measures that all runs of history.json have, by name; frequencies at one delta."""
    found = {"test_accuracy": of_history("test_accuracy")}
    if history["runs"][0]["history"]["probe_memorized"][0] is not None:
        found["memorized"] = of_history("probe_memorized")
    learned = [f"learned_{part}_{band}" for part in ("true", "noise") for band in ("low", "high")]
    for part, names in (("test", ["e_low", "e_high"]), ("probe", learned)):
        try:
            deltas = measured(history, part, names)["delta"]
        except runs.RunError:
            continue
        column = column_of(deltas, None, default=middle_delta(deltas))
        for name in names:
            found[f"{name} at delta {deltas[column]:g}"] = of_frequency(part, name, column)
    return found


def interval(values: Sequence[float]) -> dict:
    """Mean of `values` and its 95% t-interval: n, mean, low, high (None of one value)."""
    mean, count = float(np.mean(values)), len(values)
    if count == 1:
        return {"n": 1, "mean": mean, "low": None, "high": None}
    half = stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / count**0.5
    return {"n": count, "mean": mean, "low": mean - half, "high": mean + half}


def paired(values: Sequence[float], against: Sequence[float]) -> dict:
    """Mean of the differences, its interval, and the p-value of a paired t-test (None of one)."""
    difference = np.subtract(values, against)
    found = interval(difference)
    p = stats.ttest_rel(values, against).pvalue if np.ptp(difference) > 0 else None
    return {**found, "p": None if p is None else float(p)}


def summarize(history: dict) -> list[dict]:
    """Rows of the table, each with COLUMNS; `minus_loss`, `minus_stop` and p are of differences.

    Differences are of each distillation from cross-entropy: stopped alike, and distillation
    unstopped from cross-entropy stopped early and by the oracle. Raises RunError if the runs have
    no common mean.
    """
    data, groups, found = history["data"], by_loss(history), measures(history)
    setting = {"noise": data["noise"], "rate": data["rate_found"]}
    setting["network"] = history["runs"][0]["network"]

    def values(loss: str, stop: str, curve: Curve) -> dict[int, float]:
        """seed -> the measure where the run stops."""
        epochs = {seed: stopping_epochs(run)[stop] for seed, run in groups[loss].items()}
        if None in epochs.values():
            return {}
        return {seed: curve(groups[loss][seed])[epoch] for seed, epoch in epochs.items()}

    def row(measure: str, loss: str, stop: str, seeds: Sequence[int], **content) -> dict:
        place = {"loss": loss, "stop": stop, "minus_loss": None, "minus_stop": None, "p": None}
        return {**setting, **place, "measure": measure, "seeds": list(seeds), **content}

    rows = []
    for measure, curve in found.items():
        for loss in groups:
            for stop in STOPS:
                if of_seed := values(loss, stop, curve):
                    content = interval(list(of_seed.values()))
                    rows.append(row(measure, loss, stop, of_seed, **content))
    base = next(iter(groups))
    pairs = [(stop, stop) for stop in STOPS] + [("last", "early"), ("last", "oracle")]
    for measure, curve in found.items():
        for loss in list(groups)[1:]:
            for stop, other in pairs:
                mine, plain = values(loss, stop, curve), values(base, other, curve)
                common = [seed for seed in mine if seed in plain]
                if common:
                    content = paired([mine[s] for s in common], [plain[s] for s in common])
                    content |= {"minus_loss": base, "minus_stop": other}
                    rows.append(row(measure, loss, stop, common, **content))
    return rows


def as_csv(rows: Sequence[dict]) -> str:
    """The rows as CSV; seeds in one field, nothing where there is no value."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row, "seeds": " ".join(map(str, row["seeds"]))})
    return text.getvalue()


def cell(row: dict) -> str:
    """Mean and interval, as in 58.1 [57.6, 58.6], and of a difference its p."""
    percent = row["measure"] in ("test_accuracy", "memorized")
    style = ("+" if row["minus_loss"] else "") + (".1f" if percent else ".3f")
    text = f"{row['mean']:{style}}"
    if row["low"] is None:
        return f"{text} (n = 1)"
    p = "" if row["p"] is None else f", p = {row['p']:.2g}"
    return f"{text} [{row['low']:{style}}, {row['high']:{style}}]{p}"


def block(head: str, columns: Sequence[str], lines: dict[str, list[str]]) -> list[str]:
    """One part of the table, its columns under each other; none without lines."""
    table = [[head, *columns], *([f"  {name}", *cells] for name, cells in lines.items())]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    rows = ("  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in table)
    return ["", *rows] if lines else []


def as_text(rows: Sequence[dict]) -> str:
    """The table for a reader: accuracy at every stop, the other measures at the last epoch."""
    first = rows[0]
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    interval_of = "mean [95% t-interval over seeds]" if len(seeds) > 1 else "one seed, no interval"
    cells = {
        (r["measure"], r["loss"], r["stop"], r["minus_loss"] and r["minus_stop"]): cell(r)
        for r in rows
    }
    losses = list(dict.fromkeys(row["loss"] for row in rows))
    base = next((row["minus_loss"] for row in rows if row["minus_loss"]), None)

    def accuracy(head: str, places: dict[str, tuple]) -> list[str]:
        """A line a loss; columns are the stops, at `places` in the rows."""
        shown = {stop: place for stop, place in places.items() if place in stops_of_all}
        lines = {
            loss: [cells.get(("test_accuracy", loss, *place), "") for place in shown.values()]
            for loss in losses
        }
        known = {loss: values for loss, values in lines.items() if any(values)}
        return block(head, [STOPS[stop] for stop in shown], known)

    stops_of_all = {(stop, minus) for _, _, stop, minus in cells}
    text = [
        f"{first['noise']} noise, {100 * first['rate']:.4g}% wrong labels, {first['network']}, "
        f"n = {len(seeds)} (seeds {', '.join(map(str, seeds))}): {interval_of}",
        *accuracy("test accuracy (%)", {stop: (stop, None) for stop in STOPS}),
        *accuracy(f"points above {base}, stopped alike", {stop: (stop, stop) for stop in STOPS}),
        *accuracy(f"unstopped, points above {base} at its", {s: ("last", s) for s in STOPS}),
    ]
    others = list(dict.fromkeys(r["measure"] for r in rows if r["measure"] != "test_accuracy"))
    for head, minus in (("at the last epoch", None), (f"the same, minus {base}", "last")):
        of_losses = [
            loss for loss in losses if (others and (others[0], loss, "last", minus) in cells)
        ]
        lines = {
            name + (" (%)" if name == "memorized" else ""): [
                cells.get((name, loss, "last", minus), "") for loss in of_losses
            ]
            for name in others
        }
        text += block(head, of_losses, lines if of_losses else {})
    return "\n".join(text)
