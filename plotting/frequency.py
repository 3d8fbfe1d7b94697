"""Figures of frequency.json: Delta, errors by band, the order of learning, the excess map."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.history import CROSS_ENTROPY, ENOUGH_MASS, Run, Series, shown_delta
from analysis.quantities import BAND_DELTA, QUARTER, RATIO_DELTA
from analysis.statistics import first_epoch
from common.command_line import UserError
from plotting.style import (
    LEVEL,
    RIGHT,
    WRONG,
    Curve,
    Noises,
    all_runs,
    curve_grid,
    draw,
    epoch_axis,
    finish,
    series_grid,
    series_handles,
    stack,
)
from plotting.training import GAP, with_wrong_labels

MILESTONES = (10, 30, 50)  # points of cross-entropy's memorization gap
# Wide for low frequency and narrow for high: dashes mean losses.
BANDS = {"low": 2.6, "high": 1.1}
PARTS = {"clean": ("right labels", RIGHT), "residual": ("wrong labels", WRONG)}


def common_section(runs: Sequence[Run], name: str) -> dict:
    """The deltas that all runs have in a section, each with its lowest kernel mass of any run.

    Raises UserError if a run has no frequency.json, or the runs do not fit together.
    """
    lacking = [run for run in runs if run.frequency is None]
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(runs)} runs have no frequency.json ({lacking[0].name}): run "
            "frequency.py"
        )
    if len({run.frequency["values"] for run in runs}) > 1:
        raise UserError(
            "some runs have frequency.json of softmax outputs and some of logits: run frequency.py "
            "--overwrite for all of them"
        )
    sections = [run.frequency[name] for run in runs]
    deltas = [d for d in sections[0]["delta"] if all(d in other["delta"] for other in sections)]
    if not deltas:
        raise UserError(
            f"the runs have no measured delta in common: run frequency.py --delta "
            f"{RATIO_DELTA} {BAND_DELTA}"
        )
    mass = [min(s["mass"][s["delta"].index(d)] or 0 for s in sections) for d in deltas]
    if max(mass) < ENOUGH_MASS:
        raise UserError(
            f"no measured delta filters (median kernel mass below {ENOUGH_MASS}): run frequency.py "
            f"--delta {4 * max(deltas):g}"
        )
    return {"delta": deltas, "mass": mass}


def choose_delta(noises: Noises, section: str, wanted: float | None, default: float) -> float:
    """The delta of a figure: `wanted` if given, or the nearest one to the default that filters.

    It is the same for all noises. Raises UserError if the wanted one does not filter, or was not
    measured in every run.
    """
    common = common_section(all_runs(noises), section)
    if wanted is None:
        return shown_delta(common, default)
    measured = ", ".join(f"{delta:g}" for delta in common["delta"])
    if wanted not in common["delta"]:
        raise UserError(
            f"--delta {wanted:g} was not measured in every run: use one of {measured}, or run "
            f"frequency.py --delta {wanted:g}"
        )
    mass = common["mass"][common["delta"].index(wanted)]
    if mass < ENOUGH_MASS:
        raise UserError(
            f"--delta {wanted:g} filters nothing (median kernel mass {mass:.2g}): use --delta "
            f"{shown_delta(common, wanted):g}"
        )
    return wanted


def band_curve(measure: str, delta: float, section: str = "test") -> Curve:
    """A measure of frequency.json at a delta."""
    return lambda run: run.band(section, measure, delta)


def frequency(noises: Noises, delta: float | None) -> Figure:
    """Delta, the low-frequency ratio of the original, by energies and by norms."""
    shown = choose_delta(noises, "test", delta, RATIO_DELTA)
    measures = {"energy_share": "energies", "delta_norm": "norms"}
    figure, axes = curve_grid(
        noises, {f"Δ({shown:g}) by {words}": band_curve(m, shown) for m, words in measures.items()}
    )
    for row, series in zip(axes, noises.values(), strict=True):
        for panel, measure in zip(row, measures, strict=True):
            draw_levels(panel, series, measure, shown)
            draw_milestones(panel, series)
    outputs = {"softmax": "softmax outputs", "logits": "logits"}
    values = outputs[all_runs(noises)[0].frequency["values"]]
    sentences = [
        f"Δ: the low-frequency part of the {values} on test images, by energies "
        "|low|²/(|low|²+|high|²) and by norms |low|/(|low|+|high|), for a Gaussian filter of "
        f"variance δ = {shown:g} squared normalized pixels",
        "Vertical: epochs at which the memorization gap of cross-entropy first passes "
        f"{', '.join(map(str, MILESTONES))} points",
        GAP,
    ]
    return finish(figure, noises, sentences, series_handles(noises))


def draw_levels(axes: Axes, series: Series, measure: str, delta: float) -> None:
    """Levels of the clean and of the shuffled test labels, mean over runs, named in the panel."""
    sections = [run.frequency["test"] for run in all_runs({"": series})]
    columns = [section["delta"].index(delta) for section in sections]
    levels = {
        "clean labels": [section["labels"]["true"][measure] for section in sections],
        "shuffled labels": [section["shuffled"][measure] for section in sections],
    }
    for name, values in levels.items():
        height = np.mean([v[column] for v, column in zip(values, columns, strict=True)])
        axes.axhline(height, **LEVEL)
        place = {"xy": (0.02, height), "xycoords": ("axes fraction", "data")}
        offset = {"xytext": (0, -2), "textcoords": "offset points", "va": "top"}
        axes.annotate(name, **place, **offset, fontsize=8, color="#555555")
    axes.margins(y=0.1)


def draw_milestones(axes: Axes, series: Series) -> None:
    """Vertical lines where the mean gap of cross-entropy first passes MILESTONES."""
    runs = next((runs for runs in series.values() if is_cross_entropy(runs)), None)
    if runs is None:
        return
    gap = stack(runs.values(), lambda run: run.gap).mean(0)
    by_epoch: dict[int, list[int]] = {}
    for points in MILESTONES:
        if np.any(gap >= points):
            by_epoch.setdefault(int(np.argmax(gap >= points)) + 1, []).append(points)
    for epoch, passed in by_epoch.items():
        axes.axvline(epoch, **LEVEL)
        place = {"xy": (epoch, 1), "xycoords": ("data", "axes fraction")}
        offset = {"xytext": (2, 0), "textcoords": "offset points", "va": "top"}
        text = ", ".join(map(str, passed))
        axes.annotate(text, **place, **offset, fontsize=8, color="#555555")


def is_cross_entropy(runs: dict) -> bool:
    """Whether the runs of a series are trained with cross-entropy."""
    return next(iter(runs.values())).loss == CROSS_ENTROPY


def errors(noises: Noises, delta: float | None) -> Figure:
    """Errors of the low and of the high part of the outputs against clean labels."""
    shown = choose_delta(noises, "test", delta, BAND_DELTA)
    columns = {
        "low frequencies: e_low": band_curve("e_low", shown),
        "high frequencies: e_high": band_curve("e_high", shown),
    }
    figure, _ = curve_grid(noises, columns)
    sentence = (
        "e: distance of the softmax outputs' part to the clean labels' part on test images, "
        f"relative to the labels' part; δ = {shown:g}"
    )
    return finish(figure, noises, [sentence], series_handles(noises))


def order(noises: Noises, delta: float | None) -> Figure:
    """When right and wrong labels are learned, by band: a panel per loss."""
    noises, left_out = with_wrong_labels(noises)
    shown = choose_delta(noises, "sample", delta, BAND_DELTA)
    figure, places = series_grid(noises, (2.9, 2.5))
    for (noise, title), panel in places.items():
        draw_order(panel, list(noises[noise][title].values()), shown)
    sentences = [
        "Coefficient of the softmax outputs on the labels' part, by least squares on the train "
        "sample: 0 not learned, 1 learned",
        f"Right labels: the clean labels; wrong labels: their per-instance residual; δ = {shown:g}",
        f"Dots: where the mean first reaches {QUARTER:g}",
    ]
    handles = [
        Line2D([], [], color=color, linewidth=width, label=f"{name}, {band} frequency")
        for name, color in PARTS.values()
        for band, width in BANDS.items()
    ]
    return finish(figure, noises, sentences + left_out, handles)


def draw_order(axes: Axes, runs: list[Run], delta: float) -> None:
    """Coefficients on both parts of the labels in both bands, mean over the runs of a series."""
    axes.axhline(QUARTER, **LEVEL)
    for part, (_, color) in PARTS.items():
        for band, width in BANDS.items():
            values = stack(runs, band_curve(f"{part}_{band}", delta, "sample"))
            epochs = np.arange(1, values.shape[1] + 1)
            draw(axes, epochs, values, {"color": color, "linewidth": width, "marker": "o"})
            mean = values.mean(0)
            first = first_epoch(mean, QUARTER)
            height = max(QUARTER, mean[0])  # above it if the first epoch has passed it
            axes.plot(first, height, "o", color=color, markersize=3.5 + 1.2 * width)
    epoch_axis(axes)


def excess(noises: Noises, delta: float | None) -> Figure:
    """Excess low-frequency ratio by delta: the first loss, the others minus it."""
    common = common_section(all_runs(noises), "test")
    pairs = zip(common["delta"], common["mass"], strict=True)
    deltas = [delta for delta, mass in pairs if mass >= ENOUGH_MASS]
    figure, places = series_grid(noises, (2.9, 2.4), "\nδ")
    grid = list(figure.axes)
    maps: dict[str, list] = {"excess": [], "difference": []}
    for (noise, title), panel in places.items():
        series = noises[noise]
        first = next(iter(series))
        if title == first:
            maps["excess"].append((panel, excess_map(series[title], deltas)))
        else:
            panel.set_title(f"{panel.get_title()}\nminus {first}")
            values = [excess_map(series[name], deltas) for name in (title, first)]
            epochs = min(v.shape[1] for v in values)
            maps["difference"].append((panel, values[0][:, :epochs] - values[1][:, :epochs]))
    for kind, drawn in maps.items():
        draw_maps(figure, grid, drawn, deltas, kind)
    hidden = len(common["delta"]) - len(deltas)
    sentences = [
        "Excess: how far the low-frequency ratio of the outputs on test images is above shuffled "
        "labels (0), as a share of the way to outputs that the filter does not change (1); δ: "
        "variance of the filter in squared normalized pixels",
        *([f"{hidden} δ that filter hardly anything are left out"] if hidden else []),
    ]
    return finish(figure, noises, sentences, [])


def excess_map(runs: dict, deltas: Sequence[float]) -> np.ndarray:
    """Mean over the runs of a series of the excess, (deltas, epochs)."""
    means = [stack(runs.values(), band_curve("excess", delta)).mean(0) for delta in deltas]
    return np.stack(means)


def draw_maps(
    figure: Figure, grid: list[Axes], maps: list, deltas: Sequence[float], kind: str
) -> None:
    """Pairs of a panel and its map (deltas, epochs), with one color bar that names the kind.

    The lightness of both colormaps rises with the value, so that the sign of a difference can be
    read in grey, too.
    """
    if not maps:
        return
    largest = max(float(np.nanmax(np.abs(values))) for _, values in maps) or 1
    limits = {"excess": ("viridis", 0), "difference": ("cividis", -largest)}
    cmap, lowest = limits[kind]
    for panel, values in maps:
        edges = np.arange(values.shape[1] + 1) + 0.5, np.arange(len(deltas) + 1) - 0.5
        image = panel.pcolormesh(*edges, values, cmap=cmap, vmin=lowest, vmax=largest)
        panel.grid(False)
        panel.set_yticks(range(len(deltas)), [f"{delta:g}" for delta in deltas])
        epoch_axis(panel)
    height = figure.get_figheight() + 0.8
    figure.set_figheight(height)
    size = {"fraction": 0.3 / height, "pad": 0.1 / height, "aspect": 40}
    figure.colorbar(image, ax=grid, label=kind, location="bottom", **size)
