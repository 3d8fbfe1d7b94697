"""Test accuracy against the noise rate, over several studies."""

from collections.abc import Sequence

from analysis.curves import group_by_loss
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.statistics import STOPS, stopping_epochs
from common.command_line import UserError
from plotting.style import loss_styles, subplots


def rate_figure(histories: Sequence[dict]) -> Figure:
    """Test accuracy against the share of wrong labels, one panel per stopping rule.

    Raises UserError unless the histories differ in their noise rate only.
    """
    histories = sorted(histories, key=lambda history: history["data"]["rate_found"])
    check_comparable(histories)
    first = histories[0]
    groups = {100 * h["data"]["rate_found"]: group_by_loss(h) for h in histories}
    styles = loss_styles(dict.fromkeys(loss for group in groups.values() for loss in group))
    figure, (axes,) = subplots(1, len(STOPS), figsize=(12.6, 4.8), sharex=True, sharey=True)
    for panel, (stop, title) in zip(axes, STOPS.items(), strict=True):
        for loss, style in styles.items():
            draw_rates(panel, groups, loss, stop, style)
        panel.set(xlabel="wrong training labels (%)", ylabel="test accuracy (%)")
        panel.set_title(title, fontsize=10)
    seeds = {seed for group in groups.values() for runs in group.values() for seed in runs}
    band = "; band: lowest to highest seed" if len(seeds) > 1 else ""
    figure.suptitle(
        f"{first['data']['title']}, {first['data']['noise']} noise, {first['runs'][0]['network']}\n"
        f"{first['data']['train_size']} training and {first['data']['test_size']} test images, "
        f"seeds {', '.join(map(str, sorted(seeds)))}{band}",
        fontsize=9,
    )
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def check_comparable(histories: Sequence[dict]) -> None:
    """Raise UserError unless the histories differ in their noise rate only."""
    first = histories[0]["data"]
    for history in histories:
        data = history["data"]
        for name in ("title", "noise", "train_size", "test_size"):
            if data[name] != first[name]:
                raise UserError(
                    f"{data['name']} and {first['name']} differ in {name}; name histories that "
                    "differ in their noise rate only"
                )


def draw_rates(axes: Axes, groups: dict[float, dict], loss: str, stop: str, style: dict) -> None:
    """One line: mean test accuracy of a loss at a stop, against the rate in percent."""
    points = []
    for rate, group in groups.items():
        runs = group.get(loss, {}).values()
        epochs = [stopping_epochs(run)[stop] for run in runs]
        if epochs and None not in epochs:
            accuracies = [
                run["history"]["test_accuracy"][epoch]
                for run, epoch in zip(runs, epochs, strict=True)
            ]
            mean = sum(accuracies) / len(accuracies)
            points.append((rate, mean, min(accuracies), max(accuracies)))
    if points:
        rates, mean, low, high = zip(*points, strict=True)
        axes.plot(rates, mean, label=loss, **style)
        axes.fill_between(rates, low, high, color=style["color"], alpha=0.2, linewidth=0)
