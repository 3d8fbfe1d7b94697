"""The figure of spectrum.json: what is learned of the labels along a kernel's eigenvectors."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullFormatter

from analysis.history import Noises, Run, Series, all_runs, nearest
from analysis.quantities import BAND_DELTA
from common.command_line import UserError
from plotting import layout
from plotting.frequency import PARTS, is_cross_entropy
from plotting.style import DASHED, LEVEL, series_styles
from plotting.training import with_wrong_labels

FIRST_INDEX = 5  # the small bands before it scatter too much to be read
EARLIER_EPOCHS = (0.1, 0.2, 0.35)  # of cross-entropy, as fractions of its training
SHADES = ("#CCCCCC", "#AAAAAA", "#808080")


def eigenvectors(noises: Noises, delta: float | None) -> Figure:
    """Coefficients on right and wrong labels along a kernel's eigenvectors.

    A row per noise and kernel. Runs without the kernel are left out, and the row says its seeds.
    """
    noises, left_out = with_wrong_labels(noises)
    rows = kernel_rows(noises, delta)
    styles = series_styles(noises)
    figure, axes = layout.panels(len(rows), 3, (3.3, 2.6), sharex=True, sharey="col")
    for row, (kernel, series) in zip(axes, rows.values(), strict=True):
        for panel, part in zip(row, PARTS, strict=False):
            draw_coefficients(panel, series, kernel, part, styles)
        draw_energies(row[2], series, kernel)
    for panel in axes.flat:
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_formatter(NullFormatter())
    titles = [f"{name}: coefficient" for name, _ in PARTS.values()] + ["energy, cumulative"]
    layout.label_grid(figure, axes, titles, list(rows), "index of the eigenvector (smooth first)")
    sample = next(run.spectrum["n"] for run in all_runs(noises) if run.spectrum)
    sentences = [
        f"Coefficients of the softmax outputs on the labels of {sample} training images in half "
        "octaves of the index, after the last epoch; right labels: clean; wrong labels: "
        "per-instance residual",
        "Right panel: the share of the labels' own energy up to the index; grey diagonal: shuffled "
        "labels",
    ]
    handles = layout.series_handles(noises)
    fractions = ", ".join(f"{100 * f:g}" for f in EARLIER_EPOCHS)
    earlier = f"cross-entropy after {fractions}% of its epochs"
    handles.append(Line2D([], [], color=SHADES[1], linestyle=DASHED, label=earlier))
    handles += [
        Line2D([], [], color=color, label=f"energy of {name}") for name, color in PARTS.values()
    ]
    shown = {title: series for title, (_, series) in rows.items()}
    lacking = sum(not run.spectrum for run in all_runs(noises))
    if lacking:
        left_out.append(f"Runs left out: {lacking} without spectrum.json")
    return layout.finish(figure, shown, sentences + left_out, handles)


def kernel_rows(noises: Noises, delta: float | None) -> dict[str, tuple[tuple, Series]]:
    """Title of a row -> kernel and the series of the runs that have it.

    Of the Gaussian kernels, the one nearest to delta; every tangent kernel. Raises UserError if no
    run has a spectrum.json.
    """
    runs = all_runs(noises)
    kernels = dict.fromkeys(key for run in runs for key in run_kernels(run))
    if not kernels:
        raise UserError("no spectrum.json in any run: run frequency.py --eigenvectors")
    gaussian = {kernel_delta for name, kernel_delta in kernels if name == "gaussian"}
    closest = nearest(gaussian, delta or BAND_DELTA)
    shown = [key for key in kernels if key[0] != "gaussian" or key[1] == closest]
    shown.sort(key=lambda key: key[0] != "gaussian")
    rows: dict[str, tuple[tuple, Series]] = {}
    for noise, series in noises.items():
        for kernel in shown:
            having = {
                title: {seed: run for seed, run in group.items() if kernel in run_kernels(run)}
                for title, group in series.items()
            }
            found = {title: group for title, group in having.items() if group}
            if not found:
                continue
            name = kernel[0] + (f", δ = {kernel[1]:g}" if kernel[1] else "")
            counts = {len(group) for group in found.values()}
            seeds = layout.either(sorted(counts)) + (" seed" if counts == {1} else " seeds")
            rows[f"{noise}\n{name}, {seeds}"] = kernel, found
    return rows


def run_kernels(run: Run) -> dict[tuple, dict]:
    """The entries of a run's spectrum.json by kernel and delta."""
    entries = run.spectrum["kernels"] if run.spectrum else []
    return {(entry["kernel"], entry["delta"]): entry for entry in entries}


def equal_bands(series: Series, kernel: tuple) -> list[dict]:
    """The entries of a kernel of all runs.

    Raises UserError if samples of different sizes, which have different bands, would be averaged.
    """
    entries = [run_kernels(run)[kernel] for run in all_runs({"": series})]
    if any(entry["edges"] != entries[0]["edges"] for entry in entries):
        raise UserError(
            f"{', '.join(series)}: spectrum.json of samples of different sizes: name the runs of "
            "one --sample-size"
        )
    return entries


def band_middles(edges: np.ndarray) -> np.ndarray:
    """Geometric middle of each band of indices, (bands,)."""
    edges = np.asarray(edges, float)
    return np.sqrt(edges[:-1] * np.maximum(edges[1:] - 1, edges[:-1]))


def draw_coefficients(axes: Axes, series: Series, kernel: tuple, part: str, styles: dict) -> None:
    """A line per series at its last epoch; cross-entropy at earlier ones, from light to dark."""
    for title, runs in reversed(series.items()):
        entries = equal_bands({title: runs}, kernel)
        middles = band_middles(entries[0]["edges"])
        shown = middles >= FIRST_INDEX
        curves = [np.array(entry["softmax"][part], float)[:, shown] for entry in entries]
        if is_cross_entropy(runs):
            epochs = min(map(len, curves))
            for fraction, shade in zip(EARLIER_EPOCHS, SHADES, strict=True):
                epoch = max(round(fraction * epochs) - 1, 0)
                mean = np.mean([curve[epoch] for curve in curves], axis=0)
                axes.plot(middles[shown], mean, color=shade, linestyle=DASHED, linewidth=1.2)
        last = np.array([curve[-1] for curve in curves])
        layout.draw(axes, middles[shown], last, styles[title])


def draw_energies(axes: Axes, series: Series, kernel: tuple) -> None:
    """Cumulative energy of the parts at the end of each band, mean over all runs of a row."""
    entries = equal_bands(series, kernel)
    ends = np.array(entries[0]["edges"][1:], float) - 1
    for part, (_, color) in PARTS.items():
        energies = [entry["energies"][part] for entry in entries]
        if None not in energies:  # there is energy in this part
            axes.plot(ends, np.cumsum(np.mean(energies, axis=0)), color=color)
    axes.plot(ends, ends / ends[-1], **LEVEL)
