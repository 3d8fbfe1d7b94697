"""What all figures are made of: panels, curves with bands, caption, legend, the file."""

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from textwrap import TextWrapper

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.history import Noises, Run, all_runs
from analysis.quantities import run_curve
from common.command_line import UserError, printable
from common.files import atomic_write
from plotting.style import CAPTION_SIZE, LEGEND_SIZE, TITLE_SIZE, series_styles

Curve = Callable[[Run], np.ndarray]  # (epochs,)
LINE_HEIGHT = 1.35  # of the font size
HANDLE_WIDTH = 0.75  # inches of a line in the legend and the spaces beside its label
SERIES_COLUMNS = 3  # of panels per series: with more, a page would be too narrow for them
SOFTWARE = "plot.py of self-distillation on noisy labels"  # in each PNG: it may be overwritten


def panels(rows: int, columns: int, size: tuple[float, float], **options):
    """A Figure and its axes (rows, columns); size: width and height of a panel in inches."""
    width, height = max(6.0, size[0] * columns + 0.5), size[1] * rows + 0.3
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def curve(name: str) -> Curve:
    """A curve of analysis/quantities.py by its name."""
    return lambda run: run_curve(run, name)


def stack(runs: Iterable[Run], of: Curve) -> np.ndarray:
    """A curve of several runs, (runs, epochs), over the epochs that all of them have."""
    curves = [of(run) for run in runs]
    epochs = min(map(len, curves))
    return np.stack([values[:epochs] for values in curves])


def draw(axes: Axes, x: np.ndarray, values: np.ndarray, style: dict) -> None:
    """Mean over seeds of values (seeds, n) over x (n,), and a band from the lowest to the highest.

    A single point has no line, so it gets the marker of the style.
    """
    axes.plot(x, values.mean(0), **(style if len(x) == 1 else line_style(style)))
    if len(values) > 1:
        band = {"color": style["color"], "alpha": 0.18, "linewidth": 0}
        axes.fill_between(x, values.min(0), values.max(0), **band)


def line_style(style: dict) -> dict:
    """The style of a series without its marker: for curves over many epochs."""
    return {k: v for k, v in style.items() if k != "marker"}


def epoch_axis(axes: Axes) -> None:
    """Whole epochs on the x axis, also where there is one only."""
    steps = {"nbins": 6, "steps": [1, 2, 5, 10]}
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1, **steps))
    axes.margins(x=0.03)


def curve_grid(noises: Noises, columns: dict[str, Curve]) -> tuple[Figure, np.ndarray]:
    """A row per noise and a column per curve, by epoch; returns the axes (rows, columns).

    columns: title with the unit -> curve. The first series, cross-entropy, lies on top, dashed. A
    panel whose curves are NaN says that there is no value.
    """
    size = (3.9 if len(columns) < 3 else 3.3, 2.5)
    figure, axes = panels(len(noises), len(columns), size, sharex=True, sharey="col")
    styles = series_styles(noises)
    for row, series in zip(axes, noises.values(), strict=True):
        for panel, of in zip(row, columns.values(), strict=True):
            for title, runs in reversed(series.items()):
                values = stack(runs.values(), of)
                draw(panel, np.arange(1, values.shape[1] + 1), values, styles[title])
            if not any(np.isfinite(line.get_ydata()).any() for line in panel.lines):
                panel.text(0.5, 0.5, "no value", transform=panel.transAxes, ha="center")
            epoch_axis(panel)
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


def inches(figure: Figure, line: str, size: float) -> float:
    """The width of a line of text at a font size of `size` points."""
    renderer, font = figure.canvas.get_renderer(), FontProperties(size=size)
    return renderer.get_text_width_height_descent(line, font, False)[0] / figure.dpi


def wrapped(figure: Figure, text: str, width: float, size: float) -> str:
    """The text in lines of at most `width` inches at a font size of `size` points.

    A word that is longer than a line is broken: names of data sets may have no space. Control
    characters other than the end of a line are escaped.
    """
    paragraphs = [printable(paragraph) for paragraph in text.split("\n")]
    lines = paragraphs
    for characters in range(max(map(len, paragraphs)), 0, -1):
        if all(inches(figure, line, size) <= width for line in lines):
            break
        wrap = TextWrapper(characters, break_on_hyphens=False).wrap
        lines = [line for paragraph in paragraphs for line in wrap(paragraph) or [""]]
    return "\n".join(lines)


def caption(noises: Noises, combined: str) -> str:
    """The data, network, sizes and seeds of a figure; combined: how it combines several seeds."""
    runs = all_runs(noises)
    train, held_out, test = (
        either(run.data.get(f"{part}_size", "?") for run in runs)
        for part in ("train", "val", "test")
    )
    parts = (
        either(run.data.get("title", run.data["name"]) for run in runs),
        either(run.network for run in runs),
        f"{train} training, {held_out} held-out and {test} test images",
        seeds_text(noises, combined),
    )
    return "; ".join(parts)


def either(values: Iterable) -> str:
    """The different values: 5000 or 10000."""
    return " or ".join(dict.fromkeys(map(str, values)))


def seeds_text(noises: Noises, combined: str) -> str:
    """The seeds, and how several are combined, as in: seeds 6, 7, 8 (mean)."""
    groups = list(dict.fromkeys(tuple(r) for series in noises.values() for r in series.values()))
    counts = sorted({len(seeds) for seeds in groups})
    text = f"seed{'s' if counts[-1] > 1 else ''} {', '.join(map(str, groups[0]))}"
    if len(groups) > 1:
        text = "one seed each" if counts == [1] else f"{either(counts)} seeds"
    return f"{text} ({combined})" if counts[-1] > 1 else text


def finish(
    figure: Figure, noises: Noises, sentences: Sequence[str], handles: Sequence[Line2D]
) -> Figure:
    """Add sentences and caption above and the legend below, wrapped; the figure grows with them.

    A figure without a legend has no lines and shows means.
    """
    runs = all_runs(noises)
    lacking = sum(not run.is_complete for run in runs)
    unfinished = f"UNFINISHED: {lacking} of {len(runs)} runs lack their last epochs"
    last = caption(noises, "line: mean; band: lowest to highest" if handles else "mean")
    text = ". ".join([*[unfinished] * (lacking > 0), *sentences, f"Data: {last}"]) + "."
    width = figure.get_figwidth()
    text = wrapped(figure, text, width - 0.4, CAPTION_SIZE)
    figure.suptitle(text, fontsize=CAPTION_SIZE, x=0.2 / width, ha="left")
    lines = add_legend(figure, handles, width - 0.4) if handles else 0
    points = (text.count("\n") + 1) * CAPTION_SIZE + lines * LEGEND_SIZE
    figure.set_figheight(figure.get_figheight() + points * LINE_HEIGHT / 72)
    return figure


def add_legend(figure: Figure, handles: Sequence[Line2D], width: float) -> int:
    """Add a legend below, in as many columns as fit into `width` inches; returns its lines."""
    room = width - HANDLE_WIDTH
    labels = [wrapped(figure, handle.get_label(), room, LEGEND_SIZE) for handle in handles]
    widths = [
        HANDLE_WIDTH + max(inches(figure, line, LEGEND_SIZE) for line in label.split("\n"))
        for label in labels
    ]
    for rows in range(1, len(labels) + 1):
        columns = -(-len(labels) // rows)
        if sum(map(max, np.array_split(widths, columns))) <= width:
            break
    look = {"frameon": False, "fontsize": LEGEND_SIZE, "handlelength": 3.4, "columnspacing": 1.2}
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, **look)
    return rows + sum(label.count("\n") for label in labels)


def series_handles(noises: Noises, marker: bool = False) -> list[Line2D]:
    """The series in the legend, by color and dash; with their markers where a figure has some."""
    keep = dict if marker else line_style
    styles = series_styles(noises)
    return [Line2D([], [], label=title, **keep(style)) for title, style in styles.items()]


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, whole or not at all.

    Raises UserError if the path is another program's file, and OSError if it cannot be written.
    """
    if path.exists() and SOFTWARE.encode() not in path.read_bytes():
        raise UserError(f"{path}: not a figure of plot.py; name another folder with --out")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", metadata={"Software": SOFTWARE})
