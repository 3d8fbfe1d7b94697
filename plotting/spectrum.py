"""The figure of spectrum.json: what is learned of the labels along a kernel's eigenvectors."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.history import Run, Series
from analysis.quantities import BAND_DELTA
from common.command_line import UserError
from plotting.frequency import PARTS, is_cross_entropy
from plotting.style import (
    DASHED,
    LEVEL,
    Noises,
    all_runs,
    draw,
    finish,
    label_grid,
    log_axis,
    panels,
    series_handles,
    series_styles,
)
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
    figure, axes = panels(len(rows), 3, (3.3, 2.6), sharex=True, sharey="col")
    for row, (kernel, series) in zip(axes, rows.values(), strict=True):
        for panel, part in zip(row, PARTS, strict=False):
            draw_coefficients(panel, series, kernel, part, styles)
        draw_energies(row[2], series, kernel)
    titles = [f"{name}: coefficient" for name, _ in PARTS.values()] + ["energy, cumulative"]
    label_grid(figure, axes, titles, list(rows), "index of the eigenvector (smooth first)")
    sample = next(run.spectrum["n"] for run in all_runs(noises) if run.spectrum)
    sentences = [
        f"Coefficients of the softmax outputs on the labels of {sample} training images in half "
        "octaves of the index, after the last epoch; right labels: clean; wrong labels: "
        "per-instance residual",
        "Right panel: the share of the labels' own energy up to the index; grey diagonal: shuffled "
        "labels",
    ]
    handles = series_handles(noises)
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
    return finish(figure, shown, sentences + left_out, handles)


def kernel_rows(noises: Noises, delta: float | None) -> dict[str, tuple[tuple, Series]]:
    """Title of a row -> kernel and the series of the runs that have it.

    Of the Gaussian kernels, the one nearest to delta; every tangent kernel. Raises UserError if no
    run has a spectrum.json.
    """
    runs = all_runs(noises)
    kernels = dict.fromkeys(key for run in runs for key in run_kernels(run))
    if not kernels:
        raise UserError("no spectrum.json in any run: run frequency.py --eigenvectors")
    gaussian = [key for key in kernels if key[0] == "gaussian"]
    gaussian.sort(key=lambda key: abs(np.log(key[1] / (delta or BAND_DELTA))))
    shown = gaussian[:1] + [key for key in kernels if key not in gaussian]
    rows: dict[str, tuple[tuple, Series]] = {}
    for noise, series in noises.items():
        for kernel in shown:
            found = {
                title: {seed: run for seed, run in group.items() if kernel in run_kernels(run)}
                for title, group in series.items()
            }
            found = {title: group for title, group in found.items() if group}
            if not found:
                continue
            name = kernel[0] + (f", δ = {kernel[1]:g}" if kernel[1] else "")
            counts = sorted({len(group) for group in found.values()})
            seeds = " or ".join(map(str, counts)) + (" seed" if counts == [1] else " seeds")
            rows[f"{noise}\n{name}, {seeds}"] = kernel, found
    return rows


def run_kernels(run: Run) -> dict[tuple, dict]:
    """The entries of a run's spectrum.json by kernel and delta."""
    entries = run.spectrum["kernels"] if run.spectrum else []
    return {(entry["kernel"], entry["delta"]): entry for entry in entries}


def band_middles(edges: np.ndarray) -> np.ndarray:
    """Geometric middle of each band of indices, (bands,)."""
    edges = np.asarray(edges, float)
    return np.sqrt(edges[:-1] * np.maximum(edges[1:] - 1, edges[:-1]))


def coefficients(runs: dict, kernel: tuple, part: str, epoch: int) -> np.ndarray:
    """Coefficients of the softmax outputs on a part of the labels at an epoch, (runs, bands)."""
    entries = [run_kernels(run)[kernel] for run in runs.values()]
    return np.array([np.array(entry["softmax"][part][epoch], float) for entry in entries])


def draw_coefficients(axes: Axes, series: Series, kernel: tuple, part: str, styles: dict) -> None:
    """A line per series at its last epoch, and cross-entropy at earlier ones, from light to dark.

    All runs of a kernel have the same bands: their samples have the same size.
    """
    for title, runs in reversed(series.items()):
        edges = [run_kernels(run)[kernel]["edges"] for run in runs.values()]
        if any(list(other) != list(edges[0]) for other in edges):
            raise UserError(f"{title}: spectrum.json of samples of different sizes: name the runs "
                            "of one --sample-size")  # fmt: skip
        middles = band_middles(edges[0])
        shown = middles >= FIRST_INDEX
        if is_cross_entropy(runs):
            epochs = min(len(run.history["epoch"]) for run in runs.values())
            for fraction, shade in zip(EARLIER_EPOCHS, SHADES, strict=True):
                epoch = max(round(fraction * epochs) - 1, 0)
                values = coefficients(runs, kernel, part, epoch)[:, shown].mean(0)
                axes.plot(middles[shown], values, color=shade, linestyle=DASHED, linewidth=1.2)
        draw(axes, middles[shown], coefficients(runs, kernel, part, -1)[:, shown], styles[title])
    log_axis(axes)


def draw_energies(axes: Axes, series: Series, kernel: tuple) -> None:
    """Cumulative energy of the parts at the end of each band, mean over all runs of a row."""
    runs = all_runs({"": series})
    entries = [run_kernels(run)[kernel] for run in runs]
    ends = np.array(entries[0]["edges"][1:], float) - 1
    for part, (_, color) in PARTS.items():
        energies = [entry["energies"][part] for entry in entries]
        if None in energies:  # no energy in this part
            continue
        energies = np.array(energies, float)
        axes.plot(ends, np.cumsum(energies.mean(0)), color=color)
    axes.plot(ends, ends / ends[-1], **LEVEL)
    log_axis(axes)
