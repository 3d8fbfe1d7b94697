"""The tables of the controls: other losses and settings, shorter training, all images."""

from answer_tables import digits
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

from analysis.curves import group_by_loss
from analysis.history_file import read_history_file
from analysis.quantities import PRIMARY, QUANTITIES
from analysis.statistics import interval

CONTROLS = ROOT / "results" / "controls"
ALL_IMAGES = ROOT / "results" / "all-images"
# The folders of the controls: what their rows are called, and what they are compared with.
CONTROL_SETTINGS = {
    **{
        f"{noise}{flag}": (f"{NOISES[noise].split(' (')[0]}{title}", MAIN / noise)
        for noise in NOISES
        for flag, title in (
            ("", ""),
            ("-lr0.02", ", learning rate 0.02"),
            ("-epochs12", ", 12 epochs"),
            ("-epochs20", ", 20 epochs"),
        )
    },
    "human-matched": ("human transitions, independent of the image", CONTROLS / "human-matched"),
    "clean": ("no noise", None),
}
ALL_IMAGES_QUANTITIES = (
    PRIMARY,
    "both stopped early",
    "both at the last epoch",
    "own last epoch - own early stopping",
    "cross-entropy: last epoch - early stopping",
    "own last epoch - own early stopping, minus that of cross-entropy",
    "last epoch - cross-entropy at equal memorization gap",
    "individual noise learned, one-hot (share)",
)
CONTROL_CONTRASTS = ((CROSS_ENTROPY, "last"), (CROSS_ENTROPY, "early"), (DISTILLED, "last"))


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


def short_table() -> str:
    """Training for 12 epochs instead of 40, both to a learning rate of 0, at the last epochs."""
    lines = []
    for noise, title in NOISES.items():
        rows = rows_of(CONTROLS, f"{noise}-epochs12")
        short = group_by_loss(read_history_file(CONTROLS / f"{noise}-epochs12" / "history.json"))
        long = group_by_loss(read_history_file(MAIN / noise / "history.json"))
        plain, distilled = short[CROSS_ENTROPY], short[DISTILLED]
        cells = [
            number(find(rows, loss, "last", "test_accuracy")) for loss in (CROSS_ENTROPY, DISTILLED)
        ]
        cells += [
            paired(runs, others, "last")
            for runs, others in (
                (distilled, plain),
                (long[DISTILLED], plain),
                (long[PREVIOUS], plain),
                (distilled, long[DISTILLED]),
            )
        ]
        lines.append([f"{title}, n = {len(plain)}", *cells])
    head = ["noise", "cross-entropy, 12 epochs", "distillation, 12 epochs", "difference"]
    head += ["distillation, 40 epochs - cross-entropy, 12 epochs"]
    head += ["previous-epoch teacher, 40 epochs - cross-entropy, 12 epochs"]
    return markdown([*head, "distillation, 12 epochs - 40 epochs"], lines)


def all_images_table() -> str:
    """Training on all images: distillation against cross-entropy, draw by draw."""
    lines = []
    for noise in filter(lambda name: (ALL_IMAGES / name).exists(), NOISES):
        groups = group_by_loss(read_history_file(ALL_IMAGES / noise / "history.json"))
        plain, distilled = groups[CROSS_ENTROPY], groups[DISTILLED]
        for quantity in ALL_IMAGES_QUANTITIES:
            values = [QUANTITIES[quantity](distilled[k], plain[k]) for k in sorted(distilled)]
            places = digits(quantity)
            mean = number(interval(values), places, sign=True)
            cells = [f"{value:+.{places}f}" for value in values]
            lines.append([NOISES[noise], quantity, *cells, mean])
    draws = [f"draw {k}" for k in sorted(distilled)]
    head = ["noise", "distillation - cross-entropy, unless said otherwise"]
    return markdown([*head, *draws, "mean"], lines)
