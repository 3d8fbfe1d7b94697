"""The overview: for each noise, accuracy by epoch and by stopping rule, and memorization."""

from collections.abc import Sequence

import numpy as np
from analysis.curves import (
    group_by_loss,
    has_memorization,
    history_curve,
    memorization_curve,
    stack,
)
from analysis.memorization import SMALL_GAP
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.statistics import STOPS, interval, values_at_stop, what_varies
from common.command_line import UserError
from plotting.style import draw, loss_styles, noise_title, subplots


def overview_figure(histories: Sequence[dict]) -> Figure:
    """One row per noise: test accuracy by epoch and by stopping rule, memorization gap by epoch.

    Raises UserError if a run has no memorization.json.
    """
    for history in histories:
        if not has_memorization(history):
            raise UserError("no memorization.json in every run: run frequency.py")
    rows = len(histories)
    figure, axes = subplots(rows, 3, figsize=(11, 0.9 + 2.7 * rows), sharex="col")
    all_losses = dict.fromkeys(loss for h in histories for loss in group_by_loss(h))
    styles = loss_styles(all_losses)
    for history, (curves, stops, gaps) in zip(histories, axes, strict=True):
        groups = group_by_loss(history)
        end = draw_curves(curves, groups, styles, history_curve("test_accuracy"))
        draw_stops(stops, groups, styles)
        stops.sharey(curves)
        stops.tick_params(labelleft=False)
        draw_curves(gaps, groups, styles, memorization_curve("gap"))
        onset = memorization_onset(groups)
        for panel in (curves, gaps):
            panel.axvspan(1, onset, color="black", alpha=0.07, linewidth=0)
            panel.set_xlim(1, max(end, 2))
        curves.set_ylabel(f"{noise_title(history['data'])}\ntest accuracy (%)")
        gaps.set_ylabel("memorization gap (points)")
        gaps.set_ylim(bottom=min(0, gaps.get_ylim()[0]))
    first = axes[0]
    first[0].set_title("test accuracy by epoch", fontsize=10)
    first[1].set_title("by stopping rule: draws, mean, 95% interval", fontsize=10)
    first[2].set_title("memorization gap by epoch", fontsize=10)
    for panel in (axes[-1][0], axes[-1][2]):
        panel.set_xlabel("epoch")
    add_legend(figure, first[0], histories)
    return figure


def draw_curves(axes: Axes, groups: dict, styles: dict, curve) -> int:
    """One line for each loss, with a band over draws; returns the last epoch."""
    end = 1
    for loss, runs in groups.items():
        values = stack([curve(run) for run in runs.values()])
        draw(axes, values, label=loss, **styles[loss])
        end = max(end, values.shape[1])
    return end


def draw_stops(axes: Axes, groups: dict, styles: dict) -> None:
    """Test accuracy by stopping rule: one dot per draw, the mean and its 95% interval."""
    count = len(groups)
    for k, (loss, runs) in enumerate(groups.items()):
        style = {"color": styles[loss]["color"], "marker": styles[loss]["marker"]}
        for place, stop in enumerate(STOPS):
            values = list(values_at_stop(runs, history_curve("test_accuracy"), stop).values())
            if not values:
                if k == 0:
                    note = {"ha": "center", "va": "center", "fontsize": 8}
                    place_in_panel = axes.get_xaxis_transform()
                    axes.text(place, 0.5, "no images\nheld out", transform=place_in_panel, **note)
                continue
            x = place + 0.24 * (k - (count - 1) / 2)
            axes.scatter([x - 0.05] * len(values), values, s=9, alpha=0.5, linewidth=0, **style)
            bounds = interval(values)
            error = None if bounds["low"] is None else bounds["high"] - bounds["mean"]
            axes.errorbar(
                x + 0.05,
                bounds["mean"],
                yerr=error,
                markersize=5,
                capsize=3,
                linewidth=1.4,
                **style,
            )
    axes.set_xticks(
        range(len(STOPS)), ["last\nepoch", "stopped\nearly", "best test\nepoch (oracle)"]
    )
    axes.set_xlim(-0.55, len(STOPS) - 0.45)


def memorization_onset(groups: dict) -> float:
    """The epoch at which the mean gap of cross-entropy exceeds SMALL_GAP."""
    runs = next(iter(groups.values())).values()
    gap = stack([memorization_curve("gap")(run) for run in runs]).mean(0)
    exceeds = np.flatnonzero(gap > SMALL_GAP)
    return float(exceeds[0] + 1) if len(exceeds) else float(len(gap))


def add_legend(figure: Figure, axes: Axes, histories: Sequence[dict]) -> None:
    """Add the caption above, and the losses in a row below."""
    data, first = histories[0]["data"], histories[0]["runs"][0]
    draws = {len(runs) for history in histories for runs in group_by_loss(history).values()}
    numbers = " or ".join(map(str, sorted(draws)))
    figure.suptitle(
        f"{data['title']}, {data['train_size']} training images, {first['network']}; n = {numbers} "
        f"({what_varies(histories[0])})\nband: lowest to highest; shaded: before the memorization "
        f"gap of cross-entropy first exceeds {SMALL_GAP} points",
        fontsize=9,
    )
    handles, labels = axes.get_legend_handles_labels()
    layout = {"loc": "outside lower center", "ncols": len(labels), "frameon": False}
    figure.legend(handles, labels, labelcolor="linecolor", **layout)
