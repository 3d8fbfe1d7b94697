"""Figures of frequency.json: Delta, errors by band, the order of learning, the excess map."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.history import CROSS_ENTROPY, Noises, Run, Series, all_runs, filtering, nearest
from analysis.quantities import BAND_DELTA, QUARTER, RATIO_DELTA
from analysis.statistics import first_epoch
from common.command_line import UserError
from plotting import layout
from plotting.style import LEVEL, RIGHT, WRONG
from plotting.training import GAP, with_wrong_labels

MILESTONES = (10, 30, 50)  # points of cross-entropy's memorization gap
# Wide for low frequency and narrow for high: dashes mean losses.
BANDS = {"low": 2.6, "high": 1.1}
PARTS = {"clean": ("right labels", RIGHT), "residual": ("wrong labels", WRONG)}


def common_deltas(noises: Noises, section: str) -> list[float]:
    """The deltas of a section that filter in all runs. Raises UserError if there is none."""
    runs = all_runs(noises)
    lacking = [run.name for run in runs if run.frequency is None]
    if lacking:
        raise UserError(
            f"{len(lacking)} of {len(runs)} runs have no frequency.json ({lacking[0]}): run "
            "frequency.py"
        )
    if len({run.frequency["values"] for run in runs}) > 1:
        raise UserError(
            "some runs have frequency.json of softmax outputs and some of logits: run frequency.py "
            "--overwrite for all of them"
        )
    sections = [run.frequency[section] for run in runs]
    common = set.intersection(*(set(filtering(content)) for content in sections))
    if not common:
        larger = 4 * max(delta for content in sections for delta in content["delta"])
        raise UserError(
            "no measured delta filters in every run (its kernel mass is too low): run frequency.py "
            f"--delta {RATIO_DELTA} {BAND_DELTA} {larger:g}"
        )
    return sorted(common)


def choose_delta(noises: Noises, section: str, wanted: float | None, default: float) -> float:
    """The delta of a figure, for all noises: `wanted` if given, or the nearest to the default.

    Raises UserError if the wanted one was not measured in every run, or does not filter there.
    """
    deltas = common_deltas(noises, section)
    if wanted not in (None, *deltas):
        raise UserError(
            f"--delta {wanted:g} was not measured in every run, or filters nothing: use one of "
            f"{', '.join(f'{delta:g}' for delta in deltas)}, or run frequency.py --delta {wanted:g}"
        )
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
        f"Δ: the low-frequency part of the {'softmax outputs' if is_softmax else 'logits'} on test "
        "images, by energies |low|²/(|low|²+|high|²) and by norms |low|/(|low|+|high|), for a "
        f"Gaussian filter of variance δ = {shown:g} squared normalized pixels",
        "Vertical: epochs at which the memorization gap of cross-entropy first passes "
        f"{', '.join(map(str, MILESTONES))} points",
        GAP,
    ]
    return layout.finish(figure, noises, sentences, layout.series_handles(noises))


def name_line(axes: Axes, text: str, place: tuple, coordinates: tuple, x: float, y: float) -> None:
    """A small text below and right of a place, x and y points away."""
    offset = {"xytext": (x, y), "textcoords": "offset points", "va": "top"}
    axes.annotate(text, place, xycoords=coordinates, **offset, fontsize=8, color="#555555")


def draw_levels(axes: Axes, series: Series, measure: str, delta: float) -> None:
    """Levels of the clean and of the shuffled test labels, mean over runs, named in the panel."""
    levels: dict[str, list[float]] = {"clean labels": [], "shuffled labels": []}
    for run in all_runs({"": series}):
        section = run.frequency["test"]
        column = section["delta"].index(delta)
        levels["clean labels"].append(section["labels"]["true"][measure][column])
        levels["shuffled labels"].append(section["shuffled"][measure][column])
    heights = sorted((float(np.mean(values)), name) for name, values in levels.items())
    for height, _ in heights:
        axes.axhline(height, **LEVEL)
    # One text below both lines, which can be close to each other and to the curves.
    (lowest, lower), (_, upper) = heights
    text = f"upper line: {upper}; lower line: {lower}"
    name_line(axes, text, (0.02, lowest), ("axes fraction", "data"), 0, -2)
    axes.margins(y=0.15)


def draw_milestones(axes: Axes, series: Series) -> None:
    """Vertical lines where the mean gap of cross-entropy first passes MILESTONES."""
    runs = next((runs for runs in series.values() if is_cross_entropy(runs)), None)
    if runs is None:
        return
    gap = layout.stack(runs.values(), lambda run: run.gap).mean(0)
    by_epoch: dict[int, list[str]] = {}
    for points in MILESTONES:
        if np.any(gap >= points):
            by_epoch.setdefault(int(np.argmax(gap >= points)) + 1, []).append(str(points))
    for epoch, passed in by_epoch.items():
        axes.axvline(epoch, **LEVEL)
        name_line(axes, ", ".join(passed), (epoch, 1), ("data", "axes fraction"), 2, 0)


def is_cross_entropy(runs: dict) -> bool:
    """Whether the runs of a series are trained with cross-entropy."""
    return next(iter(runs.values())).loss == CROSS_ENTROPY


def errors(noises: Noises, delta: float | None) -> Figure:
    """Errors of the low and of the high part of the outputs against clean labels."""
    shown = choose_delta(noises, "test", delta, BAND_DELTA)
    columns = {f"{b} frequencies: e_{b}": band_curve(f"e_{b}", shown) for b in BANDS}
    figure, _ = layout.curve_grid(noises, columns)
    sentence = (
        "e: distance of the softmax outputs' part to the clean labels' part on test images, "
        f"relative to the labels' part; δ = {shown:g}"
    )
    return layout.finish(figure, noises, [sentence], layout.series_handles(noises))


def order(noises: Noises, delta: float | None) -> Figure:
    """When right and wrong labels are learned, by band: a panel per loss."""
    noises, left_out = with_wrong_labels(noises)
    shown = choose_delta(noises, "sample", delta, BAND_DELTA)
    figure, places = layout.series_grid(noises, (2.9, 2.5))
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
    return layout.finish(figure, noises, sentences + left_out, handles)


def draw_order(axes: Axes, runs: list[Run], delta: float) -> None:
    """Coefficients on both parts of the labels in both bands, mean over the runs of a series."""
    axes.axhline(QUARTER, **LEVEL)
    for part, (_, color) in PARTS.items():
        for band, width in BANDS.items():
            values = layout.stack(runs, band_curve(f"{part}_{band}", delta, "sample"))
            epochs = np.arange(1, values.shape[1] + 1)
            layout.draw(axes, epochs, values, {"color": color, "linewidth": width, "marker": "o"})
            mean = values.mean(0)
            height = max(QUARTER, mean[0])  # above it if the first epoch has passed it
            dot = {"color": color, "markersize": 3.5 + 1.2 * width}
            axes.plot(first_epoch(mean, QUARTER), height, "o", **dot)
    layout.epoch_axis(axes)


def excess(noises: Noises, delta: float | None) -> Figure:
    """Excess low-frequency ratio by delta: the first loss, the others minus it."""
    deltas = common_deltas(noises, "test")
    figure, places = layout.series_grid(noises, (2.9, 2.4), "\nδ")
    grid = list(figure.axes)
    maps: dict[str, list] = {"excess": [], "difference": []}
    for (noise, title), panel in places.items():
        first, *_ = noises[noise]
        values = excess_map(noises[noise][title], deltas)
        if title != first:
            panel.set_title(f"{panel.get_title()}\nminus {first}")
            other = excess_map(noises[noise][first], deltas)
            epochs = min(values.shape[1], other.shape[1])
            values = values[:, :epochs] - other[:, :epochs]
        maps["excess" if title == first else "difference"].append((panel, values))
    for kind, drawn in maps.items():
        if drawn:
            draw_maps(figure, grid, drawn, deltas, kind)
    sentences = [
        "Excess: how far the low-frequency ratio of the outputs on test images is above shuffled "
        "labels (0), as a share of the way to outputs that the filter does not change (1); δ: "
        "variance of the filter in squared normalized pixels, where it filters in every run",
    ]
    return layout.finish(figure, noises, sentences, [])


def excess_map(runs: dict, deltas: Sequence[float]) -> np.ndarray:
    """Mean over the runs of a series of the excess, (deltas, epochs)."""
    curves = [layout.stack(runs.values(), band_curve("excess", delta)) for delta in deltas]
    return np.stack([curve.mean(0) for curve in curves])


def draw_maps(
    figure: Figure, grid: list[Axes], maps: list, deltas: Sequence[float], kind: str
) -> None:
    """Pairs of a panel and its map (deltas, epochs), with one color bar that names the kind.

    The lightness of both colormaps rises with the value, so that the sign of a difference can be
    read in grey, too.
    """
    largest = max(float(np.nanmax(np.abs(values))) for _, values in maps) or 1
    cmap, lowest = {"excess": ("viridis", 0), "difference": ("cividis", -largest)}[kind]
    for panel, values in maps:
        edges = np.arange(values.shape[1] + 1) + 0.5, np.arange(len(deltas) + 1) - 0.5
        image = panel.pcolormesh(*edges, values, cmap=cmap, vmin=lowest, vmax=largest)
        panel.grid(False)
        panel.set_yticks(range(len(deltas)), [f"{delta:g}" for delta in deltas])
        layout.epoch_axis(panel)
    height = figure.get_figheight() + 0.8
    figure.set_figheight(height)
    size = {"fraction": 0.3 / height, "pad": 0.1 / height, "aspect": 40}
    figure.colorbar(image, ax=grid, label=kind, location="bottom", **size)
