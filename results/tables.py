"""Write the tables of README.md and results/README.md from the studies' summaries.

    python results/tables.py            rewrite every block between <!-- table NAME --> marks
    python results/tables.py --check    exit with status 1 if a block is not up to date

Every number in these tables comes from results/<study>/answer.json and
results/<study>/<noise>/summary.json, which collect_history.py wrote; the tables of kernels and
the differences of the controls are computed from history.json.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from cells import (
    CROSS_ENTROPY,
    DISTILLED,
    MAIN,
    NOISES,
    PREVIOUS,
    ROOT,
    find,
    markdown,
    number,
    paired,
    rows_of,
)
from kernel_tables import kernels_table, tangent_table

from analysis.curves import delta_index, group_by_loss, middle_delta
from analysis.history_file import read_history_file
from analysis.statistics import interval

TEXTS = (ROOT / "README.md", ROOT / "results" / "README.md")
CONTROLS = ROOT / "results" / "controls"
# The folders of the controls: what their rows are called, and what they are compared with.
CONTROL_SETTINGS = {
    "pair40": ("pair flip", MAIN / "pair40"),
    "pair40-lr0.02": ("pair flip, learning rate 0.02", MAIN / "pair40"),
    "symmetric40": ("symmetric", MAIN / "symmetric40"),
    "symmetric40-lr0.02": ("symmetric, learning rate 0.02", MAIN / "symmetric40"),
    "human-matched": ("human transitions, independent of the image", CONTROLS / "human-matched"),
    "clean": ("no noise", None),
}
PRIMARY = "last epoch - cross-entropy stopped early"
CONTROL_CONTRASTS = ((CROSS_ENTROPY, "last"), (CROSS_ENTROPY, "early"), (DISTILLED, "last"))

# The questions of the study, each with the quantity of answer.json that answers it.
QUESTIONS = {
    PRIMARY: "Does it beat early stopping?",
    "both stopped early": "Is it ahead where both stop early?",
    "both at the last epoch": "Does it lose less by not stopping?",
    "best test epoch with a gap under 10 points": "Is it ahead before memorization?",
    "last epoch - cross-entropy at equal memorization gap": "Is it ahead at equal memorization?",
    "individual noise learned, one-hot (share)": "Does it memorize less at equal confidence?",
    "individual noise, low minus high, one-hot (share)": "More of the low frequencies?",
    "equivalent epoch of cross-entropy (epoch)": "Like which epoch of cross-entropy?",
    "last epoch - cross-entropy at the equivalent epoch": "Is it ahead there?",
}


def answers(study: Path) -> dict[tuple[str, str, str], dict]:
    """(noise, loss, quantity) -> row of answer.json; the noise by its folder's name."""
    names = {}
    for noise in NOISES:
        history = json.loads((study / noise / "summary.json").read_text("utf-8"))["data"]
        names[history["noise"]] = noise
    rows = json.loads((study / "answer.json").read_text("utf-8"))["rows"]
    return {(names[row["noise"]], row["loss"], row["quantity"]): row for row in rows}


def answer_table() -> str:
    """The README's answer: accuracy by stopping rule, and the primary contrast."""
    contrast = answers(MAIN)
    lines = []
    for noise, title in NOISES.items():
        rows = rows_of(MAIN, noise)
        primary = contrast[noise, DISTILLED, PRIMARY]
        p = "" if primary["p_holm"] is None else f" (p = {primary['p_holm']:.2g})"
        lines.append(
            [
                f"{title}, n = {primary['n']}",
                number(find(rows, CROSS_ENTROPY, "early", "test_accuracy")),
                number(find(rows, DISTILLED, "last", "test_accuracy")),
                f"**{number(primary, sign=True)}**{p}",
                number(contrast[noise, DISTILLED, "both stopped early"], sign=True),
                number(contrast[noise, PREVIOUS, PRIMARY], sign=True),
            ]
        )
    head = ["40% wrong labels", "cross-entropy, stopped early", "distillation, last epoch"]
    head += ["difference (Holm-adjusted p)", "difference, both stopped early"]
    return markdown([*head, "difference, previous-epoch teacher"], lines)


def accuracy_table() -> str:
    """Test accuracy wherever a run is stopped, and the memorization gap at the end."""
    lines = []
    for noise, title in NOISES.items():
        rows = rows_of(MAIN, noise)
        for loss in (CROSS_ENTROPY, DISTILLED, PREVIOUS):
            stops = [
                number(find(rows, loss, s, "test_accuracy")) for s in ("last", "early", "oracle")
            ]
            gap = number(find(rows, loss, "last", "gap"))
            lines.append([title, loss, *stops, gap])
    head = ["noise", "loss", "last epoch", "early stopping", "best test epoch (oracle)"]
    return markdown([*head, "memorization gap, last epoch"], lines)


def controls_table() -> str:
    """The controls, as far as they have been run, with paired differences from their baselines."""
    lines = []
    for folder, (title, baseline) in CONTROL_SETTINGS.items():
        if not (CONTROLS / folder).exists():
            continue
        rows = rows_of(CONTROLS, folder)
        groups = group_by_loss(read_history_file(CONTROLS / folder / "history.json"))
        others = group_by_loss(read_history_file(baseline / "history.json")) if baseline else {}
        for loss, runs in groups.items():
            last = find(rows, loss, "last", "test_accuracy")
            early = number(find(rows, loss, "early", "test_accuracy"))
            gap = number(find(rows, loss, "last", "gap"))
            individual = number(find(rows, loss, "last", "one_hot_individual"), 3)
            cells = [paired(runs, others.get(other, {}), stop) for other, stop in CONTROL_CONTRASTS]
            lines.append(
                [title, loss, str(last["n"]), number(last), early, gap, individual, *cells]
            )
    head = ["noise", "loss", "n", "last epoch", "early stopping", "memorization gap, last epoch"]
    head += ["individual, one-hot", "last - cross-entropy, last"]
    head += ["last - cross-entropy, stopped early", "last - distillation, last"]
    return markdown(head, lines)


def questions_table() -> str:
    """The questions of the study, answered for each noise."""
    contrast = answers(MAIN)
    lines = []
    for quantity, question in QUESTIONS.items():
        rows = [contrast[noise, DISTILLED, quantity] for noise in NOISES]
        digits = 3 if "(share)" in quantity else 1
        cells = [number(row, digits, sign="(epoch)" not in quantity) for row in rows]
        if quantity == PRIMARY:
            holm = [f" (p = {row['p_holm']:.2g})" if row["p_holm"] else "" for row in rows]
            cells = [cell + p for cell, p in zip(cells, holm, strict=True)]
        lines.append([question, quantity, *cells])
    titles = [f"{t}, n = {row['n']}" for t, row in zip(NOISES.values(), rows, strict=True)]
    return markdown(["question", "self-distillation minus cross-entropy", *titles], lines)


def contrast_table(loss: str) -> str:
    """Every quantity of the answer for one distillation, one column per noise."""
    contrast = answers(MAIN)
    quantities = dict.fromkeys(quantity for _, other, quantity in contrast if other == loss)
    lines = []
    for quantity in quantities:
        digits = 3 if "(share)" in quantity else 1
        cells = [
            number(contrast.get((noise, loss, quantity)), digits, sign=True) for noise in NOISES
        ]
        lines.append([quantity, *cells])
    return markdown([f"{loss} minus cross-entropy", *NOISES.values()], lines)


def parts_table() -> str:
    """Learned shares of the three parts at the last epoch; the individual part also by band."""
    lines = []
    for noise, title in NOISES.items():
        rows = rows_of(MAIN, noise)
        for loss in (CROSS_ENTROPY, DISTILLED, PREVIOUS):
            cells = [
                number(find(rows, loss, "last", f"softmax_{part}"), 3)
                for part in ("clean", "transition", "individual")
            ]
            cells.append(number(find(rows, loss, "last", "one_hot_individual"), 3))
            cells += [
                number(find(rows, loss, "last", f"individual_{band}"), 3)
                for band in ("low", "high")
            ]
            lines.append([title, loss, *cells])
    head = ["noise", "loss", "clean", "transition", "individual", "individual, one-hot"]
    return markdown([*head, "individual, low", "individual, high"], lines)


def energies_table() -> str:
    """How much of each part's energy is in the low band, and how many images filter nothing."""
    lines = []
    for noise, title in NOISES.items():
        runs = group_by_loss(read_history_file(MAIN / noise / "history.json"))[CROSS_ENTROPY]
        sections = [run["frequency"]["probe"] for run in runs.values()]
        k = delta_index(sections[0]["delta"], None, middle_delta(sections[0]["delta"]))
        labels = [section["labels"] for section in sections]
        rows = [
            [part[name]["lfr"][k] for part in labels]
            for name in ("true", "transition", "individual")
        ]
        rows += [[section[name][k] for section in sections] for name in ("null", "alone")]
        lines.append([title, *(number(interval([100 * x for x in row])) for row in rows)])
    head = ["noise", "clean labels", "transition", "individual", "shuffled labels"]
    return markdown([*head, "images that the filter leaves nearly as they are"], lines)


TABLES: dict[str, Callable[[], str]] = {
    "answer": answer_table,
    "questions": questions_table,
    "accuracy": accuracy_table,
    "contrasts": lambda: contrast_table(DISTILLED),
    "contrasts-previous-epoch": lambda: contrast_table(PREVIOUS),
    "parts": parts_table,
    "controls": controls_table,
    "energies": energies_table,
    "kernels": kernels_table,
    "tangent": tangent_table,
}


def updated(text: str) -> str:
    """The text with every table block written anew. Raises KeyError for an unknown name."""

    def block(match: re.Match) -> str:
        return f"<!-- table {match[1]} -->\n{TABLES[match[1]]()}\n<!-- /table -->"

    return re.sub(r"<!-- table ([\w-]+) -->\n.*?<!-- /table -->", block, text, flags=re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    outdated = [
        path for path in TEXTS if path.read_text("utf-8") != updated(path.read_text("utf-8"))
    ]
    for path in outdated:
        print(f"{path.relative_to(ROOT)}: {'outdated' if check else 'updated'}")
        if not check:
            path.write_text(updated(path.read_text("utf-8")), "utf-8")
    return int(check and bool(outdated))


if __name__ == "__main__":
    sys.exit(main())
