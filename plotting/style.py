"""What all figures share: the losses' styles, curves with bands, caption, legend, saving."""

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count, cycle, zip_longest
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from analysis.history import CROSS_ENTROPY, Run, Series
from common.command_line import UserError, printable
from common.files import atomic_write

Noises = dict[str, Series]  # noise title -> series title -> seed -> run
Curve = Callable[[Run], np.ndarray]  # (epochs,)

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
OTHER_COLORS = (
    "#8C510A",
    "#999933",
    "#666666",
    "#882255",
    "#DDCC77",
)  # of losses that are not in STYLES
# Of those losses, and of a loss's settings beyond the first: none is in STYLES, because on grey
# paper they would be taken for each other.
DASHES = ((0, (2, 2)), (0, (6, 3)), (0, (12, 1.5)), (0, (1, 3)), (0, (5, 2, 2, 2)))
MARKERS = ("X", "<", ">", "p", "h", "*", "d")
# Of the labels' parts. No loss has these colors; bands of frequency differ in the lines' width.
RIGHT, WRONG = "#3B0F70", "#E8705A"
LEVEL = {"color": "#777777", "linewidth": 0.9, "zorder": 1}  # lines that are no curve

CAPTION_SIZE, TITLE_SIZE, LEGEND_SIZE = 8.5, 10, 9  # points
LINE_HEIGHT = 1.35  # of the font size
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
# Fonts for what DejaVu Sans lacks; matplotlib complains about those that are not installed.
FALLBACK_FONTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Micro Hei", "Hiragino Sans")
FALLBACK_FONTS += ("PingFang SC", "Yu Gothic", "Microsoft YaHei", "Malgun Gothic")
SERIES_COLUMNS = 3  # of panels per series: with more, a page would be too narrow for them
SOFTWARE = "plot.py of self-distillation on noisy labels"  # in each PNG: it may be overwritten


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
    others = [loss for loss in map(family, losses.values()) if loss not in STYLES]
    free = zip(cycle(OTHER_COLORS), cycle(DASHES), cycle(MARKERS), strict=False)
    bases = STYLES | dict(zip(dict.fromkeys(others), free, strict=False))
    styles: dict[str, dict] = {}
    for name, base in bases.items():
        titles = [title for title, loss in losses.items() if family(loss) == name]
        # The loss by its plain name comes first and has the family's own style.
        titles.sort(key=lambda title: losses[title] != name)
        styles |= zip(titles, settings_styles(*base), strict=False)
    return styles


def family(loss: str) -> str:
    """The name in STYLES that a loss's title starts with, or the title: ELR of ELR, beta 0.9."""
    names = [name for name in STYLES if f"{loss},".startswith(f"{name},")]
    return max(names, key=len, default=loss)


def settings_styles(color: str, dash, marker: str) -> Iterator[dict]:
    """Styles of one color, as many as needed: first this dash and marker, then others."""
    dashes = [dash, *(d for d in DASHES if d != dash)]
    markers = [marker, *(m for m in MARKERS if m != marker)]
    for k in count():
        yield {
            "color": color,
            "linestyle": dashes[k % len(dashes)],
            "marker": markers[k % len(markers)],
            "linewidth": PARAMETERS["lines.linewidth"] + k // len(dashes),
        }


def line_style(style: dict) -> dict:
    """The style of a series without its marker: for curves over many epochs."""
    return {k: v for k, v in style.items() if k != "marker"}


def panels(rows: int, columns: int, size: tuple[float, float], **options):
    """A Figure and its axes (rows, columns); size: width and height of a panel in inches."""
    width, height = max(6.0, size[0] * columns + 0.5), size[1] * rows + 0.3
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def stack(runs: Iterable[Run], curve: Curve) -> np.ndarray:
    """A curve of several runs, (runs, epochs), over the epochs that all of them have."""
    curves = [np.asarray(curve(run), float) for run in runs]
    epochs = min(map(len, curves))
    return np.stack([values[:epochs] for values in curves])


def draw(axes: Axes, x: np.ndarray, values: np.ndarray, style: dict) -> None:
    """Mean over seeds of values (seeds, n) over x (n,), and a band from the lowest to the highest.

    A single point has no line, so it gets the marker of the style.
    """
    if len(x) > 1:
        style = line_style(style)
    axes.plot(x, values.mean(0), **style)
    if len(values) > 1:
        band = {"color": style["color"], "alpha": 0.18, "linewidth": 0}
        axes.fill_between(x, values.min(0), values.max(0), **band)


def draw_series(axes: Axes, series: Series, curve: Curve, styles: dict[str, dict]) -> None:
    """A curve of each series by epoch. The first series, cross-entropy, lies on top, dashed."""
    for title, runs in reversed(series.items()):
        values = stack(runs.values(), curve)
        draw(axes, np.arange(1, values.shape[1] + 1), values, styles[title])
    if not any(np.isfinite(line.get_ydata()).any() for line in axes.lines):
        axes.text(0.5, 0.5, "no value", transform=axes.transAxes, ha="center")
    epoch_axis(axes)


def epoch_axis(axes: Axes) -> None:
    """Whole epochs on the x axis, also where there is one only."""
    steps = {"nbins": 6, "steps": [1, 2, 5, 10]}
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, **steps))
    axes.margins(x=0.03)


def log_axis(axes: Axes) -> None:
    """A logarithmic x axis with plain numbers."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def curve_grid(noises: Noises, columns: dict[str, Curve]) -> tuple[Figure, np.ndarray]:
    """A row per noise and a column per curve, by epoch; returns the axes (rows, columns).

    columns: title with the unit -> curve. A panel whose curves are NaN says that there is no value.
    """
    size = (3.9 if len(columns) < 3 else 3.3, 2.5)
    figure, axes = panels(len(noises), len(columns), size, sharex=True, sharey="col")
    styles = series_styles(noises)
    for row, series in zip(axes, noises.values(), strict=True):
        for panel, curve in zip(row, columns.values(), strict=True):
            draw_series(panel, series, curve, styles)
    label_grid(figure, axes, list(columns), list(noises), "epoch")
    return figure, axes


def series_grid(
    noises: Noises, size: tuple[float, float], ylabel: str = ""
) -> tuple[Figure, dict[tuple[str, str], Axes]]:
    """A panel per noise and series, a few in a row; returns (noise, series title) -> panel."""
    rows = []
    for noise, series in noises.items():
        titles = [title for title in series_styles(noises) if title in series]
        count = -(-len(titles) // SERIES_COLUMNS)
        rows += [(noise, list(chunk)) for chunk in np.array_split(np.array(titles, object), count)]
    columns = max(len(titles) for _, titles in rows)
    figure, axes = panels(len(rows), columns, size, sharex=True, sharey=True)
    label_grid(figure, axes, [""] * columns, [noise + ylabel for noise, _ in rows], "epoch")
    places = {}
    for row, (noise, titles) in zip(axes, rows, strict=True):
        for panel, title in zip_longest(row, titles):
            if title is None:
                panel.axis("off")
                panel.set_xlabel("")
                continue
            panel.set_title(wrapped(figure, title, size[0] - 0.4, TITLE_SIZE))
            panel.tick_params(labelbottom=True)
            places[noise, title] = panel
    return figure, places


def label_grid(
    figure: Figure, axes: np.ndarray, titles: Sequence[str], rows: Sequence[str], xlabel: str
) -> None:
    """Titles above the columns of axes (rows, columns), names left of the rows."""
    width = (figure.get_figwidth() - 1.2) / axes.shape[1] - 0.1
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(wrapped(figure, title, width, TITLE_SIZE))
    for row, name in zip(axes, rows, strict=True):
        height = figure.get_figheight() / len(axes) - 0.65  # less title and tick labels
        row[0].set_ylabel(wrapped(figure, name, height, LEGEND_SIZE), fontsize=LEGEND_SIZE)
    for panel in axes[-1]:
        panel.set_xlabel(xlabel)


def wrapped(figure: Figure, text: str, width: float, size: float) -> str:
    """The text in lines of at most `width` inches at a font size of `size` points.

    A word that is longer than a line is broken: names of data sets may have no space. Control
    characters other than the end of a line are escaped.
    """
    font = FontProperties(size=size)
    renderer = figure.canvas.get_renderer()

    def fits(line: str) -> bool:
        return renderer.get_text_width_height_descent(line, font, False)[0] <= width * figure.dpi

    lines = []
    for paragraph in text.split("\n"):
        line = ""
        for word in printable(paragraph).split(" "):
            longer = f"{line} {word}" if line else word
            if fits(longer):
                line = longer
                continue
            lines += [line] if line else []
            while len(word) > 1 and not fits(word):
                cut = next(k for k in range(1, len(word)) if not fits(word[: k + 1]))
                lines.append(word[:cut])
                word = word[cut:]
            line = word
        lines.append(line)
    return "\n".join(lines)


def all_runs(noises: Noises) -> list[Run]:
    """Every run that a figure shows."""
    return [run for series in noises.values() for runs in series.values() for run in runs.values()]


def caption(noises: Noises, has_bands: bool = True) -> str:
    """The data, network, sizes and seeds of a figure.

    has_bands: whether lines and bands show the seeds; otherwise means do.
    """
    runs = all_runs(noises)
    train, held_out, test = (
        either(run.data.get(f"{part}_size", "?") for run in runs)
        for part in ("train", "val", "test")
    )
    parts = (
        either(run.data.get("title", run.data["name"]) for run in runs),
        either(run.network for run in runs),
        f"{train} training, {held_out} held-out and {test} test images",
        seeds_text(noises, "line: mean; band: lowest to highest" if has_bands else "mean"),
    )
    return "; ".join(parts)


def unfinished(noises: Noises) -> list[str]:
    """A sentence if runs lack epochs."""
    runs = all_runs(noises)
    lacking = sum(not run.is_complete for run in runs)
    return [f"UNFINISHED: {lacking} of {len(runs)} runs lack their last epochs"] if lacking else []


def either(values: Iterable) -> str:
    """The different values: 5000 or 10000."""
    return " or ".join(dict.fromkeys(map(str, values)))


def seeds_text(noises: Noises, combined: str) -> str:
    """The seeds, and how several are combined, as in: seeds 6 to 11 (mean)."""
    groups = list(dict.fromkeys(tuple(r) for series in noises.values() for r in series.values()))
    counts = sorted({len(seeds) for seeds in groups})
    seeds = groups[0]
    first = seeds[0] if isinstance(seeds[0], int) else 0
    if len(groups) > 1:
        text = "one seed each" if counts == [1] else f"{either(counts)} seeds"
    elif len(seeds) > 2 and list(seeds) == list(range(first, first + len(seeds))):
        text = f"seeds {seeds[0]} to {seeds[-1]}"
    else:
        text = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return f"{text} ({combined})" if counts[-1] > 1 else text


def finish(
    figure: Figure, noises: Noises, sentences: Sequence[str], handles: Sequence[Line2D]
) -> Figure:
    """Add sentences and caption above and the legend below, wrapped; the figure grows with them."""
    width = figure.get_figwidth() - 0.4
    sentences = [*unfinished(noises), *sentences, caption(noises, has_bands=bool(handles))]
    text = ". ".join(sentences) + "."
    text = wrapped(figure, text, width, CAPTION_SIZE)
    figure.suptitle(text, fontsize=CAPTION_SIZE, x=0.2 / (width + 0.4), ha="left")
    lines = add_legend(figure, handles, width) if handles else 0
    points = (text.count("\n") + 1) * CAPTION_SIZE + lines * LEGEND_SIZE
    figure.set_figheight(figure.get_figheight() + points * LINE_HEIGHT / 72)
    return figure


def add_legend(figure: Figure, handles: Sequence[Line2D], width: float) -> int:
    """Add a legend below, in as many columns as fit into `width` inches; returns its lines."""
    handle_width = 0.75  # inches of a line and the spaces beside its label
    renderer, font = figure.canvas.get_renderer(), FontProperties(size=LEGEND_SIZE)
    labels = [
        wrapped(figure, handle.get_label(), width - handle_width, LEGEND_SIZE) for handle in handles
    ]

    def inches(column: Sequence[str]) -> float:
        lines = [line for label in column for line in label.split("\n")]
        extents = (renderer.get_text_width_height_descent(line, font, False) for line in lines)
        return max(extent[0] for extent in extents) / figure.dpi + handle_width

    for rows in range(1, len(labels) + 1):
        columns = -(-len(labels) // rows)
        if sum(map(inches, np.array_split(labels, columns))) <= width:
            break
    figure.legend(
        handles,
        labels,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=LEGEND_SIZE,
        handlelength=3.4,
        columnspacing=1.2,
    )
    return rows + sum(label.count("\n") for label in labels)


def series_handles(noises: Noises, marker: bool = False) -> list[Line2D]:
    """The series in the legend, by color and dash; with their markers where a figure has some."""
    keep = dict if marker else line_style
    styles = series_styles(noises)
    return [Line2D([], [], label=title, **keep(style)) for title, style in styles.items()]


@contextmanager
def project_style() -> Iterator[None]:
    """A block in which figures get the project's parameters; the user's matplotlibrc is ignored."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(PARAMETERS)
        installed = set(fontManager.get_font_names())
        fonts = ["DejaVu Sans", *(font for font in FALLBACK_FONTS if font in installed)]
        matplotlib.rcParams["font.family"] = fonts
        yield


def save(make: Callable[[], Figure | None], path: Path) -> set[str] | None:
    """Make a figure in the project's style and write it, whole or not at all.

    Returns the characters that no font here can draw, or None if there is no figure to draw.
    Raises what `make` raises, UserError if the path is another program's file, and OSError if it
    cannot be written.
    """
    with project_style(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figure = make()
        if figure is None:
            return None
        if path.exists() and SOFTWARE.encode() not in path.read_bytes():
            raise UserError(f"{path}: not a figure of plot.py; name another folder with --out")
        with atomic_write(path) as file:
            figure.savefig(file, format="png", metadata={"Software": SOFTWARE})
    missing = set()
    for warning in caught:
        glyph = re.match(r"Glyph (\d+) .*missing from", str(warning.message))
        if glyph:
            missing.add(chr(int(glyph[1])))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    return missing
