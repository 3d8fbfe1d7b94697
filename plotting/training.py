"""Figures of training: the frontier of accuracy and memorization, curves by epoch, noise rates."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis.history import Run, Series
from analysis.statistics import STOPS, at_gap, stopping_epoch
from common.command_line import UserError
from plotting.style import (
    LEVEL,
    TITLE_SIZE,
    Curve,
    Noises,
    all_runs,
    curve_grid,
    draw,
    finish,
    label_grid,
    panels,
    series_handles,
    series_styles,
    wrapped,
)

GAP = (
    "Memorization gap: accuracy on the clean labels among the rightly labeled minus among the "
    "wrongly labeled training images"
)
FRONTIER_POINTS = 201  # of a mean curve
FRONTIER_COLUMNS = 3


def frontier(noises: Noises, delta: float | None) -> Figure:
    """Test accuracy against memorization along training; early stop and last epoch."""
    noises, left_out = with_wrong_labels(noises)
    styles = series_styles(noises)
    columns = min(len(noises), FRONTIER_COLUMNS)
    rows = -(-len(noises) // columns)
    figure, axes = panels(rows, columns, (3.6, 3.3), sharex=True, sharey=True)
    width = figure.get_figwidth() / columns - 0.6
    for panel, (noise, series) in zip(axes.flat, noises.items(), strict=False):
        for title, runs in reversed(series.items()):
            draw_path(panel, list(runs.values()), styles[title])
        panel.set_title(wrapped(figure, noise, width, TITLE_SIZE))
        panel.set_xlabel("memorization gap (points)")
    limit_frontier(axes[0, 0], noises)
    for panel in axes.flat[len(noises) :]:
        panel.axis("off")
    for row in axes:
        row[0].set_ylabel("test accuracy (%)")
    sentences = [
        "Each curve follows training: to the right, more of the wrong labels are memorized; the "
        "mean over seeds is taken at equal gap, and the first epochs may lie below the panel",
        GAP,
    ]
    return finish(
        figure,
        noises,
        sentences + left_out,
        series_handles(noises, marker=True) + stop_handles(noises),
    )


def draw_path(axes: Axes, runs: list[Run], style: dict) -> None:
    """The mean path of the runs of a series, with its band and marks."""
    low = max(run.gap[0] for run in runs)
    high = min(run.gap.max() for run in runs)
    if low < high:
        gaps = np.linspace(low, high, FRONTIER_POINTS)
        values = [[at_gap(run, run.history["test_accuracy"], gap) for gap in gaps] for run in runs]
        draw(axes, gaps, np.array(values), style)
    mark_stops(axes, runs, style, lambda run, epoch: run.gap[epoch])


def mark_stops(axes: Axes, runs: list[Run], style: dict, x) -> None:
    """Marks at the mean over runs of (x(run, epoch), test accuracy): early filled, last open."""
    for stop, face in (("last", "white"), ("early", style["color"])):
        epochs = [stopping_epoch(run, stop) for run in runs]
        if None in epochs:
            continue
        points = [
            (x(run, epoch), run.history["test_accuracy"][epoch])
            for run, epoch in zip(runs, epochs, strict=True)
        ]
        mark = {"marker": style["marker"], "markeredgecolor": style["color"], "linestyle": ""}
        size = 7 if stop == "early" else 9.5  # both are seen where they coincide
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
        run.history["test_accuracy"][epoch]
        for run in all_runs(noises)
        for epoch in (stopping_epoch(run, "last"), stopping_epoch(run, "best_test"))
    ]
    span = max(max(marks) - min(marks), 5)
    lowest = min(marks) - 0.25 * span
    if axes.get_ylim()[0] < lowest:
        axes.set_ylim(bottom=lowest)


def with_wrong_labels(noises: Noises) -> tuple[Noises, list[str]]:
    """The noises with wrong labels, and a sentence on the others. Raises UserError without any."""
    wrong = {
        noise: series
        for noise, series in noises.items()
        if all(np.isfinite(run.gap).all() for run in all_runs({noise: series}))
    }
    if not wrong:
        raise UserError("no label of this data set is wrong, or none in the train sample: nothing "
                        "to memorize; generate.py without --noise none")  # fmt: skip
    left_out = [noise for noise in noises if noise not in wrong]
    return wrong, [f"Left out, without wrong labels: {', '.join(left_out)}"] if left_out else []


def history_curve(name: str) -> Curve:
    """A curve of history.jsonl."""
    return lambda run: run.history[name]


def gap_curve(run: Run) -> np.ndarray:
    """The memorization gap."""
    return run.gap


def accuracy(noises: Noises, delta: float | None) -> Figure:
    """Test accuracy and memorization gap by epoch."""
    columns = {
        "test accuracy (%)": history_curve("test_accuracy"),
        "memorization gap (points)": gap_curve,
    }
    figure, axes = curve_grid(noises, columns)
    for panel, series in zip(axes[:, 0], noises.values(), strict=True):
        for title, style in series_styles(noises).items():
            if title in series:
                mark_stops(panel, list(series[title].values()), style, lambda run, epoch: epoch + 1)
    handles = series_handles(noises, marker=True) + stop_handles(noises)
    sentences = ["Marks: mean over seeds of epoch and accuracy", GAP]
    if any(np.isnan(run.gap).all() for run in all_runs(noises)):
        sentences.append("No value: no label of that data set is wrong")
    return finish(figure, noises, sentences, handles)


def loss(noises: Noises, delta: float | None) -> Figure:
    """Cross-entropy on noisy training labels and on test labels, for every loss."""
    columns = {
        "cross-entropy, noisy training labels (nats)": history_curve("train_cross_entropy"),
        "cross-entropy, test labels (nats)": history_curve("test_cross_entropy"),
    }
    figure, _ = curve_grid(noises, columns)
    sentence = "Training: the mean over the steps of an epoch, whatever loss is minimized"
    return finish(figure, noises, [sentence], series_handles(noises))


def memorization(noises: Noises, delta: float | None) -> Figure:
    """Wrong labels memorized, memorization gap, and finding wrong labels by loss."""
    noises, left_out = with_wrong_labels(noises)
    lacking = [run for run in all_runs(noises) if "auc" not in run.memorization]
    if lacking:
        raise UserError(f"{len(lacking)} of {len(all_runs(noises))} runs have no memorization.json "
                        f"({lacking[0].name}): run frequency.py")  # fmt: skip
    columns = {
        "wrong labels memorized (%)": history_curve("sample_memorized"),
        "memorization gap (points)": gap_curve,
        "AUC of the loss": lambda run: run.memorization["auc"],
    }
    figure, axes = curve_grid(noises, columns)
    for panel in axes[:, 2]:
        panel.axhline(0.5, **LEVEL)
    sentences = [
        "Memorized: predicted as labeled, among the wrongly labeled training images",
        GAP,
        "AUC: the chance that a wrongly labeled image has a higher loss than a rightly labeled "
        "one; 0.5 is a guess",
    ]
    return finish(figure, noises, sentences + left_out, series_handles(noises))


def rate(noises: Noises, delta: float | None) -> Figure | None:
    """Test accuracy against the share of wrong labels, where data sets differ in it.

    None if no noise has several rates.
    """
    by_kind: dict[tuple, list[Series]] = {}
    for series in noises.values():
        data = all_runs({"": series})[0].data
        names = ("title", "noise", "train_size", "val_size", "test_size")
        by_kind.setdefault(tuple(data.get(name) for name in names), []).append(series)
    kinds = {kind: members for kind, members in by_kind.items() if len(members) > 1}
    if not kinds:
        return None
    shown = {noise: s for noise, s in noises.items() if any(s in m for m in kinds.values())}
    styles = series_styles(shown)
    figure, axes = panels(len(kinds), len(STOPS), (3.3, 2.8), sharex=True, sharey="row")
    for row, members in zip(axes, kinds.values(), strict=True):
        for panel, stop in zip(row, STOPS, strict=True):
            for title, style in styles.items():
                draw_rates(panel, [series.get(title, {}) for series in members], stop, style)
    titles = [f"{title}, test accuracy (%)" for title in STOPS.values()]
    rows = [f"{kind[0]}, {kind[1]}" for kind in kinds]
    label_grid(figure, axes, titles, rows, "wrong training labels (%)")
    left_out = [noise for noise in noises if noise not in shown]
    sentences = ["Stopped early: at the best accuracy on held-out noisy labels"]
    sentences += [f"Left out, of one rate only: {', '.join(left_out)}"] if left_out else []
    return finish(figure, shown, sentences, series_handles(shown, marker=True))


def draw_rates(axes: Axes, groups: list[dict], stop: str, style: dict) -> None:
    """One line: mean test accuracy of a series at a stop, against the rate in percent."""
    points = []
    for runs in map(dict.values, groups):
        epochs = [stopping_epoch(run, stop) for run in runs]
        if epochs and None not in epochs:
            values = [r.history["test_accuracy"][e] for r, e in zip(runs, epochs, strict=True)]
            wrong = 100 * float(np.mean([run.data["rate_found"] for run in runs]))
            points.append((wrong, np.mean(values), min(values), max(values)))
    if not points:
        return
    rates, mean, low, high = np.array(sorted(points)).T
    axes.plot(rates, mean, **style)
    if np.any(high > low):
        axes.fill_between(rates, low, high, color=style["color"], alpha=0.18, linewidth=0)
