"""The tables of the answer: the primary contrast, the study's questions, every quantity."""

import json
from pathlib import Path

from cells import CROSS_ENTROPY, DISTILLED, MAIN, NOISES, PREVIOUS, find, markdown, number, rows_of

from analysis.curves import group_by_loss
from analysis.equivalent_quantities import LEVELS
from analysis.history_file import read_history_file
from analysis.quantities import PRIMARY, QUANTITIES

# The questions of the study, each with the quantity of answer.json that answers it.
QUESTIONS = {
    PRIMARY: "Does it beat early stopping?",
    "both stopped early": "Is it ahead where both stop early?",
    "both at the last epoch": "Is it ahead where neither stops?",
    "own last epoch - own early stopping, minus that of cross-entropy": (
        "Does it lose less by not stopping?"
    ),
    "best test epoch before the gap rises by 10 points": "Is it ahead before memorization?",
    "both at gaps of 20 to 50 points (mean)": "Is it ahead at equal memorization?",
    "individual noise learned, one-hot (share)": "Does it memorize less at equal confidence?",
    "equivalent epoch, one-hot (epoch)": "Which epoch of cross-entropy is it like?",
    "last epoch - cross-entropy at the equivalent epoch, one-hot": "Is it ahead of that epoch?",
    "individual noise kept out that depends on the index (fraction)": (
        "How much of what it keeps out depends on frequency?"
    ),
    "index-dependent fraction, beyond cross-entropy at the equivalent epoch (fraction)": (
        "More of it than early stopping has?"
    ),
}


def answers(study: Path) -> dict[tuple[str, str, str], dict]:
    """(noise, loss, quantity) -> row of answer.json; the noise by its folder's name."""
    names = {}
    for noise in NOISES:
        history = json.loads((study / noise / "summary.json").read_text("utf-8"))["data"]
        names[history["noise"]] = noise
    rows = json.loads((study / "answer.json").read_text("utf-8"))["rows"]
    return {(names[row["noise"]], row["loss"], row["quantity"]): row for row in rows}


def digits(quantity: str) -> int:
    """Digits after the point: three for shares, one for points, percent and epochs."""
    return 3 if quantity.endswith(("(share)", "(fraction)", "(area)")) else 1


def draws_table() -> str:
    """The primary difference of every draw."""
    lines = []
    for noise, title in NOISES.items():
        groups = group_by_loss(read_history_file(MAIN / noise / "history.json"))
        for loss in (DISTILLED, PREVIOUS):
            values = [
                QUANTITIES[PRIMARY](run, groups[CROSS_ENTROPY][draw])
                for draw, run in sorted(groups[loss].items())
            ]
            lines.append([title, loss, *(f"{value:+.1f}" for value in values)])
    draws = [f"draw {draw}" for draw in sorted(groups[DISTILLED])]
    return markdown(["noise", f"loss; {PRIMARY}", *draws], lines)


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
    return markdown([*head, "first difference, previous-epoch teacher"], lines)


def questions_table() -> str:
    """The questions of the study, answered for each noise."""
    contrast = answers(MAIN)
    primary = [contrast[noise, DISTILLED, PRIMARY] for noise in NOISES]
    lines = []
    for quantity, question in QUESTIONS.items():
        cells = []
        for noise, first in zip(NOISES, primary, strict=True):
            row = contrast[noise, DISTILLED, quantity]
            cell = number(row, digits(quantity), sign=quantity not in LEVELS)
            cells.append(cell if row["n"] == first["n"] else f"{cell} (n = {row['n']})")
        lines.append([question, quantity, *cells])
    titles = [f"{t}, n = {row['n']}" for t, row in zip(NOISES.values(), primary, strict=True)]
    return markdown(["question", "quantity", *titles], lines)


def contrast_table(loss: str) -> str:
    """Every quantity of the answer for one distillation, one column per noise."""
    contrast = answers(MAIN)
    quantities = dict.fromkeys(quantity for _, other, quantity in contrast if other == loss)
    lines = []
    for quantity in quantities:
        cells = [
            number(
                contrast.get((noise, loss, quantity)),
                digits(quantity),
                sign=quantity not in LEVELS,
            )
            for noise in NOISES
        ]
        lines.append([quantity, *cells])
    return markdown([f"{loss} - cross-entropy, unless said otherwise", *NOISES.values()], lines)
