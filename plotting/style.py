"""How things look in every figure: the losses' colors, dashes and markers, sizes and fonts."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle

import matplotlib

from analysis.history import CROSS_ENTROPY, Noises

DASHED = (0, (4, 1.2))
# A loss has one color, dash and marker in every figure. Colorblind readers can tell the colors
# apart; on a grey printer the dashes and markers do.
STYLES = {
    CROSS_ENTROPY: ("#000000", DASHED, "o"),
    "self-distillation": ("#0072B2", "-", "s"),
    "self-distillation, previous epoch": ("#E69F00", (0, (7, 1.2, 1, 1.2)), "^"),
    "generalized cross-entropy": ("#009E73", (0, (1, 1)), "D"),
    "early-learning regularization": ("#CC79A7", (0, (3, 1, 1, 1, 1, 1)), "v"),
    "label smoothing": ("#56B4E9", (0, (9, 2)), "P"),
}
# Of losses that are not in STYLES. No dash or marker is in STYLES, because on grey paper they would
# be taken for each other; a loss's settings beyond the first have them, too.
OTHER_COLORS = ("#8C510A", "#999933", "#666666", "#882255", "#DDCC77")
DASHES = ((0, (2, 2)), (0, (6, 3)), (0, (12, 1.5)), (0, (1, 3)), (0, (5, 2, 2, 2)))
MARKERS = ("X", "<", ">", "p", "h", "*", "d")
# Of the labels' parts. No loss has these colors; bands of frequency differ in the lines' width.
RIGHT, WRONG = "#3B0F70", "#E8705A"
LEVEL = {"color": "#777777", "linewidth": 0.9, "zorder": 1}  # lines that are no curve

CAPTION_SIZE, TITLE_SIZE, LEGEND_SIZE = 8.5, 9.5, 9  # points
PARAMETERS = {
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": TITLE_SIZE,
    "font.size": 9,
    "lines.linewidth": 1.8,
    "savefig.dpi": 150,
    "text.parse_math": False,  # titles are the user's: `$` is a dollar
}


def series_styles(noises: Noises) -> dict[str, dict]:
    """series title -> color, linestyle, marker and linewidth, in the order of the legend.

    A loss has its own style, whatever else is drawn. Series of one loss under several settings
    share its color, and differ in dash and marker.
    """
    losses = {
        title: next(iter(runs.values())).loss
        for series in noises.values()
        for title, runs in series.items()
    }
    others = zip(cycle(OTHER_COLORS), cycle(DASHES), cycle(MARKERS), strict=False)
    styles: dict[str, dict] = {}
    for name in dict.fromkeys([*STYLES, *map(family, losses.values())]):
        color, dash, marker = STYLES.get(name) or next(others)
        dashes, markers = dict.fromkeys([dash, *DASHES]), dict.fromkeys([marker, *MARKERS])
        titles = [title for title, loss in losses.items() if family(loss) == name]
        # The loss by its plain name comes first and has the family's own style.
        titles.sort(key=lambda title: losses[title] != name)
        looks = zip(titles, cycle(dashes), cycle(markers), strict=False)
        for k, (title, linestyle, marker) in enumerate(looks):
            width = PARAMETERS["lines.linewidth"] + k // len(dashes)
            styles[title] = dict(color=color, linestyle=linestyle, marker=marker, linewidth=width)
    return styles


def family(loss: str) -> str:
    """The name in STYLES that a loss's title starts with, or the title: ELR of ELR, beta 0.9."""
    names = [name for name in STYLES if f"{loss},".startswith(f"{name},")]
    return max(names, key=len, default=loss)


@contextmanager
def project_style() -> Iterator[None]:
    """A block in which figures get the project's parameters; the user's matplotlibrc is ignored."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(PARAMETERS)
        yield
