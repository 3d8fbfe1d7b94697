"""The figure of spectrum.json: what is learned of the labels along a kernel's eigenvectors."""

from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.history import CROSS_ENTROPY, Noises, Series, all_runs, nearest
from analysis.quantities import BAND_DELTA
from analysis.statistics import STOPS, stopping_epoch
from common.command_line import UserError
from plotting import layout
from plotting.frequency import PARTS, is_cross_entropy
from plotting.style import DASHED, LEVEL, series_styles
from plotting.training import with_wrong_labels

FIRST_INDEX = 5  # the small bands before it scatter too much to be read
STOPPED = {"color": "#999999", "linestyle": DASHED}  # cross-entropy, stopped early


def eigenvectors(noises: Noises, delta: float | None) -> Figure:
    """Coefficients on right and wrong labels along a kernel's eigenvectors.

    A row per noise and kernel. Runs without the kernel are left out, and the row says its seeds.
    """
    noises, left_out = with_wrong_labels(noises)
    measured = [run for run in all_runs(noises) if run.spectrum]
    if not measured:
        raise UserError("no spectrum.json in any run: run frequency.py --eigenvectors")
    rows = kernel_rows(noises, delta)
    styles = series_styles(rows)
    figure, axes = layout.panels(len(rows), 3, 2.6, sharex=True, sharey="col")
    for row, series in zip(axes, rows.values(), strict=True):
        for panel, part in zip(row, PARTS, strict=False):
            draw_coefficients(panel, series, part, styles)
        draw_energies(row[2], series)
    for panel in axes.flat:
        panel.set_xscale("log")
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter("")
    titles = [f"{name}: coefficient" for name, _ in PARTS.values()] + ["cumulative energy"]
    layout.label_grid(figure, axes, titles, list(rows), "eigenvector (smooth first)")
    sentences = [
        f"Coefficients of the softmax outputs on the labels of {measured[0].spectrum['n']} "
        "training images in half octaves of the eigenvectors' index, after the last epoch; right "
        "labels: clean; wrong labels: per-instance residual",
        "Last column: the share of the labels' own energy up to the index; gray line: shuffled "
        "labels",
    ]
    lacking = len(all_runs(noises)) - len(measured)
    if lacking:
        left_out.append(f"Runs left out: {lacking} without spectrum.json")
    handles = layout.series_handles(rows)
    if STOPPED["color"] in [line.get_color() for line in axes[0, 0].lines]:
        handles.append(Line2D([], [], label=f"{CROSS_ENTROPY}, {STOPS['early']}", **STOPPED))
    handles += [
        Line2D([], [], color=color, label=f"energy of {name}") for name, color in PARTS.values()
    ]
    return layout.finish(figure, rows, sentences + left_out, handles)


def kernel_rows(noises: Noises, delta: float | None) -> Noises:
    """Title of a row -> series of the runs that have its kernel, each with that entry as spectrum.

    Of the Gaussian kernels, the one nearest to delta; every tangent kernel. Raises UserError if
    samples of different sizes, which have different bands, would be averaged.
    """
    entries = [e for run in all_runs(noises) if run.spectrum for e in run.spectrum["kernels"]]
    kernels = dict.fromkeys((entry["kernel"], entry["delta"]) for entry in entries)
    closest = nearest([d for name, d in kernels if name == "gaussian"], delta or BAND_DELTA)
    shown = [(name, d) for name, d in kernels if name != "gaussian" or d == closest]
    rows: Noises = {}
    for noise, series in noises.items():
        for name, kernel_delta in sorted(shown, key=lambda kernel: kernel[0] != "gaussian"):
            having = with_kernel(series, name, kernel_delta)
            if not having:
                continue
            if len({tuple(run.spectrum["edges"]) for run in all_runs({"": having})}) > 1:
                words = "of different sizes; repeat frequency.py --eigenvectors with one --size"
                raise UserError(f"{', '.join(having)}: spectra {words}")
            title = name + (f", δ = {kernel_delta:g}" if kernel_delta else "")
            seeds = layout.either(sorted(map(len, having.values())))
            rows[f"{noise}\n{title}, {seeds} seed{'s' * (seeds != '1')}"] = having
    return rows


def with_kernel(series: Series, kernel: str, delta: float | None) -> Series:
    """The runs that have a kernel, with its entry of spectrum.json as their spectrum."""
    having: Series = {}
    for title, runs in series.items():
        for seed, run in runs.items():
            for entry in run.spectrum["kernels"] if run.spectrum else []:
                if (entry["kernel"], entry["delta"]) == (kernel, delta):
                    having.setdefault(title, {})[seed] = replace(run, spectrum=entry)
    return having


def draw_coefficients(axes: Axes, series: Series, part: str, styles: dict) -> None:
    """A line per series at its last epoch, and one for cross-entropy stopped early."""
    for title, runs in reversed(series.items()):
        edges = np.array(next(iter(runs.values())).spectrum["edges"], float)
        middles = np.sqrt(edges[:-1] * (edges[1:] - 1))  # geometric, of the bands of indices
        shown = middles >= FIRST_INDEX
        curves = [np.array(run.spectrum["softmax"][part], float)[:, shown] for run in runs.values()]
        last = np.array([curve[-1] for curve in curves])
        layout.draw(axes, middles[shown], last, styles[title])
        stops = [stopping_epoch(run, "early") for run in runs.values()]
        if is_cross_entropy(runs) and None not in stops:
            early = [curve[stop] for curve, stop in zip(curves, stops, strict=True)]
            axes.plot(middles[shown], np.mean(early, axis=0), **STOPPED)


def draw_energies(axes: Axes, series: Series) -> None:
    """Cumulative energy of the parts at the end of each band, mean over all runs of a row."""
    spectra = [run.spectrum for run in all_runs({"": series})]
    ends = np.array(spectra[0]["edges"][1:], float) - 1
    for part, (_, color) in PARTS.items():
        energies = [spectrum["energies"][part] for spectrum in spectra]
        if None not in energies:  # there is energy in this part
            axes.plot(ends, np.cumsum(np.mean(energies, axis=0)), color=color)
    axes.plot(ends, ends / ends[-1], **LEVEL)
