"""Write the tables of README.md and results/README.md from the studies' summaries.

    python results/tables.py            rewrite every block between <!-- table NAME --> marks
    python results/tables.py --check    exit with status 1 if a block is not up to date

Every number in these tables comes from results/<study>/answer.json and
results/<study>/<noise>/summary.json, which collect_history.py wrote; the tables of kernels and
the differences of the controls are computed from history.json.
"""

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from answer_tables import answer_table, contrast_table, draws_table, questions_table
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
    rows_of,
)
from control_tables import ALL_IMAGES, all_images_table, controls_table, short_table
from kernel_tables import kernels_table, tangent_table

from analysis.curves import delta_index, group_by_loss, middle_delta
from analysis.history_file import read_history_file
from analysis.statistics import interval

TEXTS = (ROOT / "README.md", ROOT / "results" / "README.md")


def accuracy_table(study: Path = MAIN) -> str:
    """Test accuracy wherever a run is stopped, and the memorization gap at the end."""
    lines = []
    for noise, title in NOISES.items():
        rows = rows_of(study, noise) if (study / noise).exists() else []
        losses = {row["loss"] for row in rows}
        for loss in filter(losses.__contains__, (CROSS_ENTROPY, DISTILLED, PREVIOUS)):
            stops = [
                number(find(rows, loss, s, "test_accuracy")) for s in ("last", "early", "oracle")
            ]
            gap = number(find(rows, loss, "last", "gap"))
            lines.append([title, loss, *stops, gap])
    head = ["noise", "loss", "last epoch", "early stopping", "best test epoch (oracle)"]
    return markdown([*head, "memorization gap, last epoch"], lines)


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
    """How much of each part's energy is low, and how many images the filter hardly changes."""
    lines = []
    for noise, title in NOISES.items():
        runs = group_by_loss(read_history_file(MAIN / noise / "history.json"))[CROSS_ENTROPY]
        sections = [run["frequency"]["probe"] for run in runs.values()]
        k = delta_index(sections[0]["delta"], None, middle_delta(sections[0]["delta"]))
        labels = [section["labels"] for section in sections]
        # A transition that is a multiple of the clean labels is not a part of its own.
        dropped = any(section["transition_dropped"] for section in sections)
        rows = [
            [part[name]["lfr"][k] for part in labels]
            for name in ("true", "transition", "individual")
        ]
        rows += [[section[name][k] for section in sections] for name in ("null", "alone")]
        cells = [number(interval([100 * share for share in row])) for row in rows]
        cells[1] = "" if dropped else cells[1]
        lines.append([title, *cells])
    head = ["noise", "clean labels", "transition", "individual", "shuffled labels"]
    return markdown([*head, "images with a kernel mass below 3"], lines)


TABLES: dict[str, Callable[[], str]] = {
    "answer": answer_table,
    "questions": questions_table,
    "draws": draws_table,
    "accuracy": accuracy_table,
    "contrasts": lambda: contrast_table(DISTILLED),
    "contrasts-previous-epoch": lambda: contrast_table(PREVIOUS),
    "parts": parts_table,
    "controls": controls_table,
    "short": short_table,
    "all-images": all_images_table,
    "all-images-accuracy": lambda: accuracy_table(ALL_IMAGES),
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
