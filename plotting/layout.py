"""What all figures are made of: panels, curves with bands, caption, legend, the file."""

from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analysis.history import Noises, Run, all_runs
from analysis.quantities import run_curve
from analysis.tables import listed
from common.command_line import UserError, printable
from common.files import atomic_write
from plotting.style import CAPTION_SIZE, LEGEND_SIZE, TITLE_SIZE, series_styles

Curve = Callable[[Run], np.ndarray]  # (epochs,)
COLUMNS = 3  # of panels: with more, a page would be too narrow for them
WIDTH = 8.3  # inches of every figure: still readable when it is shrunk to a page's 6.3
MARGIN, HANDLE_WIDTH = 0.2, 0.75  # inches beside a text; of a line in the legend and its spaces
SOFTWARE = "plot.py of self-distillation on noisy labels"  # in each PNG: it may be overwritten


def panels(rows: int, columns: int, height: float, **options) -> tuple[Figure, np.ndarray]:
    """A figure and its axes (rows, columns); height: of a row in inches."""
    figure = Figure(figsize=(WIDTH, height * rows + 0.3), layout="constrained")
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
    marker = style["marker"] if len(x) == 1 else ""
    axes.plot(x, values.mean(0), **{**style, "marker": marker})
    if len(values) > 1:
        band = {"color": style["color"], "alpha": 0.18, "linewidth": 0}
        axes.fill_between(x, values.min(0), values.max(0), **band)


def draw_epochs(axes: Axes, values: np.ndarray, style: dict) -> None:
    """`draw` values (seeds, epochs) by epoch, with ticks at whole epochs only."""
    draw(axes, np.arange(1, values.shape[1] + 1), values, style)
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1)
    axes.xaxis.set_major_locator(ticks)
    axes.margins(x=0.03)


def curve_grid(noises: Noises, columns: dict[str, Curve]) -> tuple[Figure, np.ndarray]:
    """A row per noise and a column per curve, by epoch; returns the axes (rows, columns).

    columns: title with the unit -> curve. The first series, cross-entropy, lies on top, dashed. A
    panel whose curves are NaN says that there is no value.
    """
    figure, axes = panels(len(noises), len(columns), 2.5, sharex=True, sharey="col")
    styles = series_styles(noises)
    for row, series in zip(axes, noises.values(), strict=True):
        for panel, of in zip(row, columns.values(), strict=True):
            for title, runs in reversed(series.items()):
                draw_epochs(panel, stack(runs.values(), of), styles[title])
            if not any(np.isfinite(line.get_ydata()).any() for line in panel.lines):
                panel.text(0.5, 0.5, "no value", transform=panel.transAxes, ha="center")
    label_grid(figure, axes, list(columns), list(noises), "epoch")
    return figure, axes


def label_grid(
    figure: Figure, axes: np.ndarray, titles: Sequence[str], rows: Sequence[str], xlabel: str
) -> None:
    """Titles above the columns of axes (rows, columns), names left of the rows."""
    width = (WIDTH - 1.2) / axes.shape[1] - 0.1
    height = figure.get_figheight() / len(axes) - 0.65  # less title and tick labels
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(wrapped(figure, title, width, TITLE_SIZE))
    for row, name in zip(axes, rows, strict=True):
        row[0].set_ylabel(wrapped(figure, name, height, LEGEND_SIZE))
    for panel in axes[-1]:
        panel.set_xlabel(xlabel)


def titled_panels(
    titles: Sequence[str], columns: int, height: float, xlabel: str, ylabel: str
) -> tuple[Figure, list[Axes]]:
    """A panel per title with axes alike, row by row; the place of an empty title stays empty."""
    figure, axes = panels(-(-len(titles) // columns), columns, height, sharex=True, sharey=True)
    for panel, title in zip_longest(axes.flat, titles, fillvalue=""):
        panel.set_title(wrapped(figure, title, WIDTH / columns - 2 * MARGIN, TITLE_SIZE))
        panel.set_xlabel(xlabel)
        panel.tick_params(labelbottom=True)
        panel.set_visible(title != "")
    for panel in axes[:, 0]:
        panel.set_ylabel(ylabel)
    return figure, [panel for panel in axes.flat if panel.get_visible()]


def inches(figure: Figure, line: str, size: float) -> float:
    """The width of a line of text at a font size of `size` points."""
    renderer, font = figure.canvas.get_renderer(), FontProperties(size=size)
    return renderer.get_text_width_height_descent(line, font, False)[0] / figure.dpi


def wrapped(figure: Figure, text: str, width: float, size: float) -> str:
    """The text in lines of at most `width` inches at a font size of `size` points.

    A word that is longer than a line is broken: names of data sets may have no space. Control
    characters other than the end of a line are escaped.
    """
    lines = []
    for line in map(printable, text.split("\n")):
        parts, characters = [line], len(line)
        while (widest := max(inches(figure, part, size) for part in parts)) > width:
            characters = min(characters - 1, int(characters * width / widest))
            parts = wrap(line, characters, break_on_hyphens=False) or [""]
        lines += parts
    return "\n".join(lines)


def caption(noises: Noises) -> str:
    """The data, network, sizes and seeds of a figure, and what is drawn of several seeds."""
    runs = all_runs(noises)
    data = either(run.data.get("source", run.data["name"]) for run in runs)
    sizes = (
        f"{either(run.data.get(f'{part}_size', '?') for run in runs)} {name}"
        for part, name in (("train", "training"), ("val", "held-out"), ("test", "test images"))
    )
    groups = {tuple(group): len(group) for series in noises.values() for group in series.values()}
    per_curve = f"{either(sorted(groups.values()))} per curve"
    seeds = listed(next(iter(groups))) if len(groups) == 1 else per_curve
    word = "seed" if list(groups.values()) == [1] else "seeds:"
    means = " (means; bands: lowest to highest)" if max(groups.values()) > 1 else ""
    network = either(run.network for run in runs)
    return f"{data}; {network}; {', '.join(sizes)}; {word} {seeds}{means}"


def either(values: Iterable) -> str:
    """The different values: 5000 or 10000."""
    return " or ".join(dict.fromkeys(map(str, values)))


def finish(
    figure: Figure, noises: Noises, sentences: Sequence[str], handles: Sequence[Line2D]
) -> Figure:
    """Add sentences and caption above and the legend below; the figure grows with them."""
    width = WIDTH - 2 * MARGIN
    runs = all_runs(noises)
    lacking = sum(not run.is_complete for run in runs)
    unfinished = [f"UNFINISHED: {lacking} of {len(runs)} runs lack their last epochs"]
    text = ". ".join([*unfinished * (lacking > 0), *sentences, f"Data: {caption(noises)}."])
    text = wrapped(figure, text, width, CAPTION_SIZE)
    title = figure.suptitle(text, fontsize=CAPTION_SIZE, x=MARGIN / WIDTH, ha="left")
    room = width - HANDLE_WIDTH
    labels = [wrapped(figure, handle.get_label(), room, LEGEND_SIZE) for handle in handles]
    look = {"frameon": False, "fontsize": LEGEND_SIZE, "handlelength": 3.4, "columnspacing": 1.2}
    for rows in range(1, len(labels) + 1):  # as few as fit
        columns = -(-len(labels) // rows)
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns, **look)
        if columns == 1 or legend.get_window_extent().width <= (WIDTH - MARGIN) * figure.dpi:
            break
        legend.remove()
    added = title.get_window_extent().height + legend.get_window_extent().height
    figure.set_figheight(figure.get_figheight() + added / figure.dpi)
    return figure


def series_handles(noises: Noises, marker: bool = False) -> list[Line2D]:
    """The series in the legend, by color and dash; with their markers where a figure has some."""
    plain = {} if marker else {"marker": ""}
    styles = series_styles(noises)
    return [Line2D([], [], label=title, **{**style, **plain}) for title, style in styles.items()]


def check_measured(runs: Sequence[Run], name: str) -> None:
    """Raise UserError if some of the runs lack a measure: memorization or frequency."""
    lacking = [run.name for run in runs if not getattr(run, name)]
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(runs)} runs have no {name}.json ({lacking[0]}): run "
            "frequency.py"
        )


def save(figure: Figure, path: Path) -> None:
    """Write the figure as PNG, whole or not at all.

    Raises UserError if the path is another program's file, and OSError if it cannot be written.
    """
    if path.exists() and SOFTWARE.encode() not in path.read_bytes():
        raise UserError(f"{path}: not a figure of plot.py; name another folder with --out")
    with atomic_write(path) as file:
        figure.savefig(file, format="png", metadata={"Software": SOFTWARE})
