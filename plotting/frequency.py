"""Figures of frequency.json: Delta, errors by band, the order of learning."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.history import CROSS_ENTROPY, Noises, Run, Series, all_runs, filtering, nearest
from analysis.quantities import BAND_DELTA, QUARTER, RATIO_DELTA
from analysis.statistics import first_epoch
from common.command_line import UserError
from plotting import layout
from plotting.layout import curve
from plotting.style import LEVEL, RIGHT, WRONG
from plotting.training import GAP, with_wrong_labels

MILESTONES = (10, 30, 50)  # points of cross-entropy's memorization gap
# Wide for low frequency and narrow for high: dashes mean losses.
BANDS = {"low": 2.6, "high": 1.1}
NAME = {"fontsize": 8, "color": "#555555"}  # of what names a line in a panel
PARTS = {"clean": ("right labels", RIGHT), "residual": ("wrong labels", WRONG)}


def choose_delta(noises: Noises, section: str, wanted: float | None, default: float) -> float:
    """The delta of a figure, for all noises: `wanted` if given, or the nearest to the default.

    Of those that were measured in every run and filter there. Raises UserError if there is none, or
    if the wanted one is none of them.
    """
    runs = all_runs(noises)
    layout.check_measured(runs, "frequency")
    sections = [run.frequency[section] for run in runs]
    deltas = sorted(set.intersection(*(set(filtering(content)) for content in sections)))
    if not deltas:
        larger = 4 * max(delta for content in sections for delta in content["delta"])
        raise UserError(
            "no measured delta filters in every run (its kernel mass is too low): run frequency.py "
            f"--delta {RATIO_DELTA} {BAND_DELTA} {larger:g}"
        )
    if wanted not in (None, *deltas):
        known = f"use one of {', '.join(f'{delta:g}' for delta in deltas)}"
        if all(wanted in content["delta"] for content in sections):
            raise UserError(f"--delta {wanted:g} hardly filters these images: {known}")
        more = f"or run frequency.py on all of them with --delta {wanted:g}"
        raise UserError(f"--delta {wanted:g} was not measured in every run: {known}, {more}")
    return wanted or nearest(deltas, default)


def band_curve(measure: str, delta: float, section: str = "test") -> layout.Curve:
    """A measure of frequency.json at a delta."""
    return lambda run: run.band(section, measure, delta)


def frequency(noises: Noises, delta: float | None) -> Figure:
    """Delta, the low-frequency ratio of the original, by energies and by norms."""
    shown = choose_delta(noises, "test", delta, RATIO_DELTA)
    measures = {"energy_share": "energies", "delta_norm": "norms"}
    figure, axes = layout.curve_grid(
        noises, {f"Δ({shown:g}) by {words}": band_curve(m, shown) for m, words in measures.items()}
    )
    for row, series in zip(axes, noises.values(), strict=True):
        for panel, measure in zip(row, measures, strict=True):
            draw_levels(panel, series, measure, shown)
            draw_milestones(panel, series)
    is_softmax = all_runs(noises)[0].frequency["values"] == "softmax"
    sentences = [
        f"Δ: low-frequency share of the {'softmax outputs' if is_softmax else 'logits'} on test "
        "images, by energies |low|²/(|low|²+|high|²) and by norms |low|/(|low|+|high|), for a "
        f"Gaussian filter of variance δ = {shown:g} squared normalized pixels",
        "Vertical: epochs at which the memorization gap of cross-entropy first passes "
        f"{', '.join(map(str, MILESTONES))} points",
        GAP,
    ]
    return layout.finish(figure, noises, sentences, layout.series_handles(noises))


def draw_levels(axes: Axes, series: Series, measure: str, delta: float) -> None:
    """Levels of the clean and of the shuffled test labels, mean over runs, named at the right."""
    clean, shuffled = [], []
    for run in all_runs({"": series}):
        section = run.frequency["test"]
        column = section["delta"].index(delta)
        clean.append(section["labels"]["true"][measure][column])
        shuffled.append(section["shuffled"][measure][column])
    levels = [(np.mean(clean), "clean\nlabels"), (np.mean(shuffled), "shuffled\nlabels")]
    # The lines can be close to each other: one name is below the lower, the other above the upper.
    for (height, name), place in zip(sorted(levels), ("top", "bottom"), strict=True):
        axes.axhline(height, **LEVEL)
        axes.text(1.01, height, name, transform=axes.get_yaxis_transform(), va=place, **NAME)


def draw_milestones(axes: Axes, series: Series) -> None:
    """Vertical lines where the mean gap of cross-entropy first passes MILESTONES."""
    runs = next((runs for runs in series.values() if is_cross_entropy(runs)), None)
    if runs is None:
        return
    gap = layout.stack(runs.values(), curve("gap")).mean(0)
    passed = [points for points in MILESTONES if np.any(gap >= points)]
    for line, points in enumerate(passed):
        epoch = int(np.argmax(gap >= points)) + 1
        axes.axvline(epoch, **LEVEL)
        # Each number is a line lower than the last: the epochs can be close to each other.
        place = {"xytext": (2, -9 * line), "textcoords": "offset points", "va": "top"}
        axes.annotate(f"{points}", (epoch, 1), xycoords=("data", "axes fraction"), **place, **NAME)
    axes.margins(y=0.2)


def is_cross_entropy(runs: dict) -> bool:
    """Whether the runs of a series are trained with cross-entropy."""
    return next(iter(runs.values())).loss == CROSS_ENTROPY


def errors(noises: Noises, delta: float | None) -> Figure:
    """Errors of the low and of the high part of the outputs against clean labels."""
    shown = choose_delta(noises, "test", delta, BAND_DELTA)
    columns = {f"{b} frequencies: e_{b}": band_curve(f"e_{b}", shown) for b in BANDS}
    figure, _ = layout.curve_grid(noises, columns)
    sentence = (
        "e: distance of a band of the softmax outputs from that of the clean test labels, "
        f"relative to the latter; δ = {shown:g}"
    )
    return layout.finish(figure, noises, [sentence], layout.series_handles(noises))


def order(noises: Noises, delta: float | None) -> Figure:
    """When right and wrong labels are learned, by band: a panel per loss."""
    noises, left_out = with_wrong_labels(noises)
    shown = choose_delta(noises, "sample", delta, BAND_DELTA)
    columns = min(max(map(len, noises.values())), layout.COLUMNS)
    titles, groups = [], []
    for noise, series in noises.items():
        titles += [f"{title}\n{noise}" for title in series] + [""] * (-len(series) % columns)
        groups += [list(runs.values()) for runs in series.values()]
    figure, axes = layout.titled_panels(titles, columns, 2.6, "epoch", "coefficient")
    for panel, runs in zip(axes, groups, strict=True):
        draw_order(panel, runs, shown)
    sentences = [
        "Least-squares coefficient of the softmax outputs' band on the labels' band, training "
        "images: 0 not learned, 1 learned",
        "Right labels: clean, and the transition under symmetric noise; wrong labels: their "
        f"per-instance residual; δ = {shown:g}",
        f"Dots: where a line first reaches {QUARTER:g}",
    ]
    handles = [
        Line2D([], [], color=color, linewidth=width, label=f"{name}, {band} frequency")
        for name, color in PARTS.values()
        for band, width in BANDS.items()
    ]
    return layout.finish(figure, noises, sentences + left_out, handles)


def draw_order(axes: Axes, runs: list[Run], delta: float) -> None:
    """Coefficients on both parts of the labels in both bands, mean over the runs of a series."""
    axes.axhline(QUARTER, **LEVEL)
    for part, (_, color) in PARTS.items():
        for band, width in BANDS.items():
            values = layout.stack(runs, band_curve(f"{part}_{band}", delta, "sample"))
            style = {"color": color, "linewidth": width, "marker": "o"}
            layout.draw_epochs(axes, values, style)
            mean = values.mean(0)
            height = max(QUARTER, mean[0])  # above it if the first epoch has passed it
            style["markersize"] = 3.5 + 1.2 * width
            axes.plot(first_epoch(mean, QUARTER), height, **style)
