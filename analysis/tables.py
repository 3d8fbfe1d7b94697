"""The content of results.json, and the tables made of it: for a terminal and for Markdown.

    noises       noise -> {seeds, varies, deltas, values, series: title -> {loss, network, setting,
                 runs, seeds, stopped_at: {rule: [epoch]}, means: {rule: {curve: interval}}}}
    differences  a list of {noise, series, loss, minus, quantity, title, unit, is_difference,
                 is_shown, values: {seed: value}, n, mean, low, high, p}; replace and add also
                 p_holm, tests (how many it corrects for), p_not_worse, p_not_better and verdict
    annealing    the same of short trainings; minus: a longer one of the loss and setting

An interval is {n, mean, low, high}; means are over the runs with a value. A value that does not
exist is NaN here and null in the file.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np

from analysis import history, quantities, statistics
from analysis.history import CROSS_ENTROPY, NAN, SELF_DISTILLATION, Run, Series
from analysis.quantities import ADD, ANNEALING, QUANTITIES, REPLACE, Quantity, cell
from analysis.statistics import STOPS, interval
from common.command_line import UserError, printable

PRIMARY = f"{SELF_DISTILLATION}, previous epoch"  # the loss of the plan's primary contrasts
HOLM = "p of the previous epoch's contrasts by Holm's method over all noises"
SHORT_LINES = 14  # of the text without --all; the script adds what it has written
COUNT = "n (seeds)"  # the head of the column of tables whose lines have an n of their own
Table = list[list[str]]  # its head, then its lines


def results(noises: Mapping[str, Series]) -> dict:
    """The content of results.json of by_noise's runs."""
    content = {}
    for noise, series in noises.items():
        runs = history.all_runs({noise: series})
        content[noise] = {
            "seeds": list(dict.fromkeys(seed for group in series.values() for seed in group)),
            "varies": what_varies(runs),
            "deltas": shown_deltas(runs),
            "values": next((run.frequency["values"] for run in runs if run.frequency), None),
            "series": {title: series_content(group) for title, group in series.items()},
        }
    differences = compare(noises, statistics.baseline_of, QUANTITIES)
    add_verdicts(differences)
    annealing = compare(noises, statistics.longer_of, ANNEALING)
    compared = {"differences": differences, "annealing": annealing}
    return {"noises": content, "margin": statistics.MARGIN, **compared}


def what_varies(runs: Sequence[Run]) -> str:
    """What differs between the runs of one loss, and so what the intervals are over."""
    if len({run.data["digest"] for run in runs}) > 1:
        return "images, noisy labels, held-out images, initialization and order"
    has_crops = any(run.settings.get("augment") for run in runs)
    return f"initialization{', order and crops' if has_crops else ' and order'}, on one data set"


def shown_deltas(runs: Sequence[Run]) -> dict[str, float]:
    """The deltas at which tables show the frequency measures; NaN if none filters."""
    names = {
        "Delta": "test_energy_share",
        "errors": "test_e_low",
        "coefficients": "one_hot_clean_low",
    }
    measured = next((run for run in runs if run.frequency), runs[0])
    return {name: quantities.shown_delta(measured, curve) for name, curve in names.items()}


def series_content(runs: Mapping[int | str, Run]) -> dict:
    """What results.json has of a series: seed -> run."""
    first, names = next(iter(runs.values())), quantities.curve_names(runs.values())
    means, stopped_at = {}, {}
    for stop in STOPS:
        epochs = [statistics.stopping_epoch(run, stop) for run in runs.values()]
        stopped_at[stop] = [NAN if epoch is None else epoch + 1 for epoch in epochs]
        values = {name: map(quantities.at(name, stop), runs.values()) for name in names}
        means[stop] = {name: interval(own) for name, own in values.items()}
    return {
        "loss": first.loss,
        "network": first.network,
        "setting": first.setting,
        "runs": [run.name for run in runs.values()],
        "seeds": list(runs),
        "stopped_at": stopped_at,
        "means": means,
    }


def compare(
    noises: Mapping[str, Series],
    other_of: Callable[[Series, str], str | None],
    wanted: Sequence[Quantity],
) -> list[dict]:
    """The quantities of every series and the one that `other_of` names beside it, seed by seed."""
    rows = []
    for noise, series in noises.items():
        for title, runs in series.items():
            minus = other_of(series, title)
            if minus in (None, title):
                continue
            for quantity in wanted:
                values = statistics.paired(runs, series[minus], quantity.of)
                if not values:
                    continue
                row = {"noise": noise, "series": title, "minus": minus, "quantity": quantity.key}
                row["loss"] = next(iter(runs.values())).loss
                row |= {k: v for k, v in vars(quantity).items() if k not in ("key", "of")}
                numbers = list(values.values())
                p = statistics.p_not_zero(numbers) if quantity.is_difference else NAN
                rows.append({**row, "values": values, **interval(numbers), "p": p})
    return rows


def add_verdicts(rows: list[dict]) -> None:
    """Add what the primary contrasts have shown; the plan's, under all noises, Holm corrects."""
    for title in dict.fromkeys(row["series"] for row in rows):
        own = [row for row in rows if row["series"] == title and row["quantity"] in (REPLACE, ADD)]
        is_primary = any(row["loss"] == PRIMARY for row in own)
        corrected = statistics.holm([row["p"] for row in own]) if is_primary else [NAN] * len(own)
        tests = sum(not np.isnan(p) for p in corrected) if is_primary else 1
        for row, p_holm in zip(own, corrected, strict=True):
            equivalence = statistics.equivalence(list(row["values"].values()))
            row |= {"p_holm": p_holm, "tests": tests, **equivalence}
            p = p_holm if is_primary else row["p"]
            row["verdict"] = statistics.verdict(row["mean"], p, **equivalence)


def listed(seeds: Iterable[int | str]) -> str:
    """Seeds in order, as in: 6 to 11."""
    seeds = sorted(seeds, key=lambda seed: str(seed).zfill(9))
    are_numbers = all(isinstance(seed, int) for seed in seeds)
    if are_numbers and seeds[-1] - seeds[0] == len(seeds) - 1 > 1:
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def all_seeds(content: dict) -> set[int | str]:
    """The seeds of all noises."""
    return {seed for noise in content["noises"].values() for seed in noise["seeds"]}


def caption(content: dict, has_counts: bool = False) -> str:
    """What ± means, what varies, and n and the seeds, unless a column of the table has them."""
    seeds = all_seeds(content)
    several = [noise for noise in content["noises"].values() if len(noise["seeds"]) > 1]
    varies = "; ".join(dict.fromkeys(noise["varies"] for noise in several))
    if not several:
        return f"one seed ({listed(seeds)}), no intervals"
    over = " over n seeds" if has_counts else f", n = {len(seeds)} seeds ({listed(seeds)})"
    return f"mean ± half-width of the 95% t-interval{over} that differ in {varies}"


def delta_line(content: dict) -> str:
    """The deltas of the frequency measures by noise; empty without any."""
    shown: dict[str, list[str]] = {}
    for noise, group in content["noises"].items():
        known = {name: d for name, d in group["deltas"].items() if not np.isnan(d)}
        text = ", ".join(f"{name} at delta {delta:g}" for name, delta in known.items())
        text += " (of logits)" if group["values"] == "logits" else ""
        shown.setdefault(text, []).append(noise)
    if len(shown) == 1:
        return next(iter(shown))
    return "; ".join(f"{text} under {' and '.join(n)}" for text, n in shown.items() if text)


def missing(content: dict) -> list[str]:
    """A line on each kind of number that a noise lacks, and on how to get it."""
    lines = []
    for noise, group in content["noises"].items():
        means = [series["means"] for series in group["series"].values()]
        if all(np.isnan(mean["last"]["gap"]["mean"]) for mean in means):
            lines.append(f"{noise}: no gap: no wrong label in the train sample, or not measured")
        if all(np.isnan(mean["early"]["test_accuracy"]["mean"]) for mean in means):
            lines.append(f"{noise}: no early stopping; hold out data: generate.py --val-size")
        if np.isnan(group["deltas"]["Delta"]):
            lines.append(
                f"{noise}: no delta filters; run frequency.py, if need be with a larger --delta"
            )
        compared = {row["series"] for row in content["differences"] if row["noise"] == noise}
        for title, series in group["series"].items():
            if series["loss"] != CROSS_ENTROPY and title not in compared:
                lines.append(f"{noise}, {title}: no cross-entropy run with its settings and seeds")
    return lines


def find(
    content: dict, noise: str, series: str, quantity: str, kind: str = "differences"
) -> dict | None:
    """The row of `compare`, or None."""
    key = (noise, series, quantity)
    return next((r for r in content[kind] if (r["noise"], r["series"], r["quantity"]) == key), None)


def row_cell(row: dict | None, n: int) -> str:
    """The cell of a row of `compare`; empty for None."""
    return cell(row, row["unit"], row["is_difference"], n) if row else ""


def contrast(row: dict | None, n: int, is_short: bool = False) -> str:
    """A primary contrast: its cell, its p and its verdict, or a star if it differs from 0."""
    text = row_cell(row, n)
    if row is None:
        return text
    p = row["p"] if np.isnan(row["p_holm"]) else row["p_holm"]
    if is_short:
        return text + " *" * (p < statistics.LEVEL)
    return text if np.isnan(p) else f"{text} (p = {p:.2g}; {row['verdict']})"


def accuracies(series: dict | None, stops: Collection[str], n: int) -> list[str]:
    """A cell for each stopping rule: the test accuracy of a series of results.json."""
    if series is None:
        return [""] * len(stops)
    return [cell(series["means"][stop]["test_accuracy"], "percent", n=n) for stop in stops]


def most_seeds(group: Iterable[dict | None]) -> int:
    """The number of seeds that most or all of several series have: the n that a table says."""
    return max((len(series["seeds"]) for series in group if series), default=0)


def without_empty_columns(table: Table) -> Table:
    """The table without the columns that have a head only."""
    kept = [k for k in range(len(table[0])) if any(line[k] for line in table[1:])]
    return [[line[k] for k in kept] for line in table]


def answer_table(content: dict) -> Table:
    """A line per noise: the accuracies of cross-entropy and of self-distillation, P1 and P2."""
    losses, stops = [CROSS_ENTROPY, SELF_DISTILLATION, PRIMARY], ["last", "early"]
    head = [f"{title}, {stop}" for title in (*losses[:2], "previous epoch") for stop in stops]
    titles = {title for group in content["noises"].values() for title in group["series"]}
    whose = "previous epoch " if any(title.startswith(PRIMARY) for title in titles) else ""
    head += [f"replace: {whose}last - cross-entropy early (points)", "add: both early (points)"]
    table = [["noise", *head]]
    for noise, group in content["noises"].items():
        endings = [title.removeprefix(s["loss"]) for title, s in group["series"].items()]
        for ending in dict.fromkeys(endings):  # of each setting
            own = [group["series"].get(loss + ending) for loss in losses]
            n = most_seeds(own)
            cells = [text for series in own for text in accuracies(series, stops, n)]
            shown = (PRIMARY if own[2] else SELF_DISTILLATION) + ending
            cells += [contrast(find(content, noise, shown, key), n) for key in (REPLACE, ADD)]
            if any(cells):
                table.append([f"{noise}{ending}, n = {n}", *cells])
    return without_empty_columns(table)


def accuracy_table(content: dict) -> Table:
    """Test accuracy by stopping rule, and what is memorized at the last epoch, of every series."""
    curves = {"memorized (%)": "sample_memorized", "gap (points)": "gap"}
    table = [["noise", "loss", COUNT, *(f"{title} (%)" for title in STOPS.values()), *curves]]
    for noise, group in content["noises"].items():
        for title, series in group["series"].items():
            seeds, last = series["seeds"], series["means"]["last"]
            cells = accuracies(series, STOPS, len(seeds))
            cells += [cell(last[curve], "percent", n=len(seeds)) for curve in curves.values()]
            table.append([noise, title, f"{len(seeds)} ({listed(seeds)})", *cells])
    return without_empty_columns(table)


def quantities_table(content: dict) -> Table:
    """Every quantity that is shown: a line per series and quantity, a column per noise."""
    noises, n = list(content["noises"]), len(all_seeds(content))
    rows = [row for row in content["differences"] if row["is_shown"]]
    table = [["minus cross-entropy, unless noted", "quantity", "unit", *noises]]
    for series, key in dict.fromkeys((row["series"], row["quantity"]) for row in rows):
        own = [find(content, noise, series, key) for noise in noises]
        first = next(row for row in own if row)
        cells = [row_cell(row, n) for row in own]
        table.append([series, first["title"], first["unit"], *cells])
    return table


def annealing_table(content: dict) -> Table:
    """Short trainings beside the curve of longer ones where these have the same gap."""
    table = [["noise", "training", "average of", COUNT, *(q.title for q in ANNEALING)]]
    rows = content["annealing"]
    for place in dict.fromkeys((row["noise"], row["series"], row["minus"]) for row in rows):
        own = [find(content, *place[:2], quantity.key, "annealing") for quantity in ANNEALING]
        seeds = own[0]["values"]
        cells = [row_cell(row, len(seeds)) for row in own]
        table.append([*place, f"{len(seeds)} ({listed(seeds)})", *cells])
    return table


TABLES = {
    "answer": answer_table,
    "accuracy": accuracy_table,
    "quantities": quantities_table,
    "annealing": annealing_table,
}


def aligned(table: Table) -> list[str]:
    """The lines of a table for a terminal; a first cell like the one above is left out."""
    shown = [[printable(text) for text in line] for line in table]
    for above, line in zip(table, shown[1:], strict=False):
        line[0] = "" if line[0] == above[0] else line[0]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        "  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)).rstrip()
        for line in shown
    ]


def short_text(content: dict) -> list[str]:
    """At most SHORT_LINES lines that answer the question, of about 80 columns."""
    is_compared = bool(content["differences"])
    head = ["last", "early", "best", "memorized"] + ["replace", "add"] * is_compared
    table: Table = []
    for noise, group in content["noises"].items():
        most = most_seeds(group["series"].values())
        table.append([f"{noise}, n = {most}", *head])
        for title, series in group["series"].items():
            n, means = len(series["seeds"]), series["means"]
            single = means["best_test"]["test_accuracy"], means["last"]["sample_memorized"]
            rows = [find(content, noise, title, key) for key in (REPLACE, ADD)]
            table.append([
                f"  {title.replace(PRIMARY, 'previous epoch')}" + f", n = {n}" * (n != most),
                *accuracies(series, ("last", "early"), n),
                *("" if np.isnan(mean["mean"]) else f"{mean['mean']:.1f}" for mean in single),
                *(contrast(row, n, is_short=True) for row in rows if is_compared),
            ])  # fmt: skip
    room, count = SHORT_LINES - 2, len(table)
    if count > room:  # of each noise, what the question is about
        titles = ["  previous epoch", f"  {SELF_DISTILLATION}"]
        title = next((t for t in titles for row in table if row[0].startswith(t)), titles[0])
        kept = ("  cross-entropy", title)
        table = [row for row in table if not row[0].startswith("  ") or row[0].startswith(kept)]
        table = table[: room - 1]
    lines = aligned(table)
    if count > len(lines):
        lines.append(f"... and {count - len(lines)} more lines: collect_history.py with --all")
    spread = "± half the 95% interval over n seeds; best, memorized: mean"
    spread = "one seed: no interval" if len(all_seeds(content)) == 1 else spread
    legend = "replace: last - cross-entropy early; add: both early; * p < 5% (previous: Holm)"
    return [f"test accuracy (%), {spread}", *lines, *[legend] * is_compared]


def long_text(content: dict) -> list[str]:
    """Every table that has lines."""
    tables = [make(content) for make in TABLES.values()]
    lines = [caption(content), delta_line(content), HOLM]
    return lines + [line for table in tables if table[1:] for line in ("", *aligned(table))]


def markdown(content: dict, name: str) -> str:
    """A table of TABLES in Markdown, with its caption."""
    head, *lines = [[text.replace("|", "\\|") for text in row] for row in TABLES[name](content)]
    rows = [head, ["---"] * len(head), *lines]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    notes = {"quantities": delta_line(content), "answer": HOLM}
    words = caption(content, COUNT in head), notes.get(name)
    text = "; ".join(word for word in words if word)
    return f"{table}\n\n{text[0].upper()}{text[1:]}."


def with_blocks(text: str, content: dict, study: str) -> str:
    """The text with every table of this study written anew.

    A table stands between `<!-- table: NAME -->` or `<!-- table: NAME STUDY -->` and
    `<!-- end -->`; those of other studies stay. Raises UserError for an unknown NAME, a table
    without an end, or if no table is of this study.
    """
    start = r"<!-- table: *([\w-]+) *([\w.-]*) *-->"
    names = [name for name, other in re.findall(start, text) if other in ("", study)]
    if not names:
        raise UserError(f"no table of {study} in it; add <!-- table: answer --> and <!-- end -->")
    if unknown := [name for name in names if name not in TABLES]:
        raise UserError(f"table {unknown[0]} is not known; use {', '.join(TABLES)}")

    def block(match: re.Match) -> str:
        if match[2] not in ("", study):
            return match[0]
        return f"{match[0].splitlines()[0]}\n{markdown(content, match[1])}\n<!-- end -->"

    pattern = rf"{start}\n(?:(?!<!-- table:).)*?<!-- end -->"
    written, count = re.subn(pattern, block, text, flags=re.S)
    if count != len(re.findall("<!-- table:", text)):
        raise UserError("a table in it has no <!-- end -->, or a name with spaces; fix it")
    return written
