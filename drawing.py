"""What all figures share: curves with bands, the losses' styles, differences, caption, legend."""

from functools import partial

import matplotlib
import numpy as np

from curves import Curve, stack

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # the backend has to be chosen first
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

DASHED = (0, (4, 1.2))
# Colours that the colour-blind tell apart and that differ in grey; the line's style as well.
STYLES = {
    "cross-entropy": {"color": "#D55E00", "linestyle": DASHED, "marker": "o", "zorder": 4},
    "self-distillation": {"color": "#0072B2", "linestyle": "-", "marker": "s", "zorder": 2},
}
OTHER_STYLES = (
    {"color": "#CC79A7", "linestyle": (0, (6, 1, 1, 1)), "marker": "^", "zorder": 3},
    {"color": "#56B4E9", "linestyle": (0, (1, 1)), "marker": "v", "zorder": 3},
    {"color": "#009E73", "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "D", "zorder": 3},
    {"color": "#E69F00", "linestyle": (0, (8, 2)), "marker": "P", "zorder": 3},
)
SUBPLOTS = partial(plt.subplots, layout="constrained", squeeze=False)


def draw(axes: Axes, values: np.ndarray, **style) -> None:
    """Mean over runs of (runs, epochs), with a band from the lowest to the highest."""
    epochs = np.arange(1, values.shape[1] + 1)
    marker = style.pop("marker", "o") if len(epochs) == 1 else None  # one point has no line
    axes.plot(epochs, values.mean(0), **{**style, "marker": marker})
    if len(values) > 1:
        band = {"color": style["color"], "alpha": 0.2, "linewidth": 0}
        axes.fill_between(epochs, values.min(0), values.max(0), **band)


def label_axes(axes: Axes, ylabel: str, title: str) -> None:
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.set_title(title, fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def styles_of(groups: dict) -> dict[str, dict]:
    """The style of each loss."""
    others = [loss for loss in groups if loss not in STYLES]
    more = {loss: OTHER_STYLES[k % len(OTHER_STYLES)] for k, loss in enumerate(others)}
    return {loss: STYLES.get(loss) or more[loss] for loss in groups}


def draw_losses(axes: Axes, groups: dict, curve: Curve, ylabel: str, title: str) -> None:
    """One line a loss."""
    for loss, style in styles_of(groups).items():
        draw(axes, stack([curve(run) for run in groups[loss].values()]), label=loss, **style)
    label_axes(axes, ylabel, title)


def draw_difference(axes: Axes, groups: dict, curve: Curve, ylabel: str) -> None:
    """Each other loss minus the first: seed by seed, of means where no seed is common."""
    axes.axhline(0, color="black", linewidth=0.8)
    first, *others = groups
    label_axes(axes, ylabel, f"minus {first}")
    if not others:
        axes.text(0.5, 0.5, "one loss only", transform=axes.transAxes, ha="center")
    for loss in others:
        plain, distilled = groups[first], groups[loss]
        pairs = [stack([curve(plain[s]), curve(distilled[s])]) for s in plain if s in distilled]
        if not pairs:
            means = [stack([curve(run) for run in g.values()]).mean(0) for g in (plain, distilled)]
            pairs = [stack(means)]
        draw(axes, stack([pair[1] - pair[0] for pair in pairs]), **styles_of(groups)[loss])


def caption(history: dict, groups: dict, several: str = "band: lowest to highest seed") -> str:
    """What the figure is of: data, noise, network, sizes and seeds, and what several become."""
    data, network = history["data"], history["runs"][0]["network"]
    seeds = {loss: ", ".join(map(str, sorted(of_loss))) for loss, of_loss in groups.items()}
    if len(set(seeds.values())) == 1:
        of_seeds = f"seeds {next(iter(seeds.values()))}"
    else:
        of_seeds = "; ".join(f"{loss} seeds {seeds[loss]}" for loss in seeds)
    several = f"; {several}" if any(len(g) > 1 for g in groups.values()) else ""
    return (
        f"{data['title']}, {data['noise']} noise, {100 * data['rate_found']:.4g}% wrong labels, "
        f"{network}\n{data['train_size']} training and {data['test_size']} test images, "
        f"{of_seeds}{several}"
    )


def finish(figure: Figure, history: dict, groups: dict, axes: Axes) -> Figure:
    """Caption above, the legend of `axes` in its own row below: it cannot hide a curve."""
    figure.suptitle(caption(history, groups), fontsize=9)
    handles, labels = axes.get_legend_handles_labels()
    columns = min(len(labels), max(2, int(figure.get_figwidth() / 2.3)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    return figure
