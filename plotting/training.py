"""Figures of training: the frontier of accuracy and memorization, and curves by epoch."""

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.history import Noises, Run, all_runs
from analysis.statistics import STOPS, at_level, at_stop, stopping_epoch
from common.command_line import UserError
from plotting import layout
from plotting.layout import curve
from plotting.style import LEVEL, series_styles

ACCURACY = "test accuracy (%)"
GAP = (
    "Memorization gap: accuracy on the clean labels among the correctly labeled minus among the "
    "wrongly labeled training images"
)
FRONTIER_POINTS = 201  # of a mean curve


def frontier(noises: Noises, delta: float | None) -> Figure:
    """Test accuracy against memorization along training; early stop and last epoch."""
    noises, left_out = with_wrong_labels(noises)
    styles = series_styles(noises)
    columns, labels = min(len(noises), layout.COLUMNS), ("memorization gap (points)", ACCURACY)
    figure, axes = layout.titled_panels(list(noises), columns, 3.3, *labels)
    for panel, series in zip(axes, noises.values(), strict=True):
        for title, runs in reversed(series.items()):
            draw_path(panel, list(runs.values()), styles[title])
    limit_frontier(axes[0], noises)
    sentences = [
        "Lines: accuracy where each gap is first reached, over the gaps that all seeds reach; "
        "marks: stopping epochs, sometimes off the line. To the right, more wrong labels are "
        "memorized; the first epochs may lie below the panel",
        GAP,
    ]
    handles = layout.series_handles(noises, marker=True) + stop_handles(noises)
    return layout.finish(figure, noises, sentences + left_out, handles)


def draw_path(axes: Axes, runs: list[Run], style: dict) -> None:
    """The mean path of the runs of a series, with its band and marks."""
    low, high = max(run.gap[0] for run in runs), min(run.gap.max() for run in runs)
    if low >= high:  # no gap that all runs reach: the means by epoch
        path = layout.stack(runs, curve("gap")), layout.stack(runs, curve("test_accuracy"))
        layout.draw(axes, path[0].mean(0), path[1].mean(0, keepdims=True), style)
    else:
        gaps = np.linspace(low, high, FRONTIER_POINTS)
        values = [
            [at_level(run.gap, run.history["test_accuracy"], gap) for gap in gaps] for run in runs
        ]
        layout.draw(axes, gaps, np.array(values), style)
    mark_stops(axes, runs, style, curve("gap"))


def mark_stops(axes: Axes, runs: list[Run], style: dict, x: Callable) -> None:
    """Marks at the mean over runs of (x, test accuracy): stopped early filled, last epoch open.

    x: a curve of the run.
    """
    for stop, face, size in (("last", "white", 11), ("early", style["color"], 6)):
        points = [
            [at_stop(run, values, stop) for values in (x(run), run.history["test_accuracy"])]
            for run in runs
        ]
        mark = {"marker": style["marker"], "markeredgecolor": style["color"], "linestyle": ""}
        edge = {"markersize": size, "markeredgewidth": 1.8, "markerfacecolor": face, "zorder": 5}
        axes.plot(*np.mean(points, axis=0), **mark, **edge)


def stop_handles(noises: Noises) -> list[Line2D]:
    """What filled and open marks mean, in the legend."""
    labels = {"white": f"open: {STOPS['last']}"}
    if any(stopping_epoch(run, "early") is not None for run in all_runs(noises)):
        labels["#777777"] = f"filled: {STOPS['early']} (best accuracy on held-out noisy labels)"
    mark = {"linestyle": "", "marker": "o", "markersize": 8, "markeredgecolor": "#777777"}
    return [Line2D([], [], label=labels[face], markerfacecolor=face, **mark) for face in labels]


def limit_frontier(axes: Axes, noises: Noises) -> None:
    """Cut off the steep start of training, in which all series are alike."""
    marks = [
        at_stop(run, run.history["test_accuracy"], stop)
        for run in all_runs(noises)
        for stop in STOPS
    ]
    marks = np.array(marks)[np.isfinite(marks)]  # without held-out images there is no early stop
    lowest = min(marks) - 0.25 * max(np.ptp(marks), 5)
    axes.set_ylim(bottom=max(axes.get_ylim()[0], lowest))


def with_wrong_labels(noises: Noises) -> tuple[Noises, list[str]]:
    """The noises with wrong labels, and a sentence on the others. Raises UserError without any."""
    wrong = {
        noise: series
        for noise, series in noises.items()
        if all(np.isfinite(run.gap).all() for run in all_runs({noise: series}))
    }
    if not wrong:
        raise UserError("no label of this data set is wrong, or none in the sample; use "
                        "generate.py --rate, or a larger train.py --sample-size")  # fmt: skip
    left_out = [noise for noise in noises if noise not in wrong]
    return wrong, [f"Left out, without wrong labels: {', '.join(left_out)}"] if left_out else []


def accuracy(noises: Noises, delta: float | None) -> Figure:
    """Test accuracy and memorization gap by epoch."""
    columns = {ACCURACY: curve("test_accuracy"), "memorization gap (points)": curve("gap")}
    figure, axes = layout.curve_grid(noises, columns)
    styles = series_styles(noises)
    for panel, series in zip(axes[:, 0], noises.values(), strict=True):
        for title, runs in series.items():
            mark_stops(panel, list(runs.values()), styles[title], curve("epoch"))
    handles = layout.series_handles(noises, marker=True) + stop_handles(noises)
    sentences = [GAP]
    if any(np.isnan(run.gap).all() for run in all_runs(noises)):
        sentences.append("No value: no label of that data set is wrong")
    return layout.finish(figure, noises, sentences, handles)


def loss(noises: Noises, delta: float | None) -> Figure:
    """Cross-entropy on noisy training labels and on test labels, for every loss."""
    columns = {
        "cross-entropy, noisy training labels (nats)": curve("train_cross_entropy"),
        "cross-entropy, test labels (nats)": curve("test_cross_entropy"),
    }
    figure, _ = layout.curve_grid(noises, columns)
    sentence = "Training: of the network itself, averaged over steps, whatever loss is minimized"
    return layout.finish(figure, noises, [sentence], layout.series_handles(noises))


def memorization(noises: Noises, delta: float | None) -> Figure:
    """Wrong labels memorized, and finding wrong labels by the loss."""
    noises, left_out = with_wrong_labels(noises)
    layout.check_measured(all_runs(noises), "memorization")
    columns = {
        "wrong labels memorized (%)": curve("sample_memorized"),
        "AUC of the loss": curve("auc"),
    }
    figure, axes = layout.curve_grid(noises, columns)
    for panel in axes[:, 1]:
        panel.axhline(0.5, **LEVEL)
    sentences = [
        "Memorized: predicted as labeled, among the wrongly labeled training images",
        "AUC: the chance that a wrongly labeled image has a higher loss than a correctly labeled "
        "one; 0.5 is a guess",
    ]
    return layout.finish(figure, noises, sentences + left_out, layout.series_handles(noises))
