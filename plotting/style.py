"""What all figures share: curves with bands, the losses' styles, differences, caption, legend."""

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from analysis.curves import Curve, stack

from common.files import atomic_write

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # the backend has to be chosen first
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

PARAMETERS = {
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "savefig.dpi": 150,
    "lines.linewidth": 1.6,
}
DASHED = (0, (4, 1.2))
# A loss has the same color in every figure. Colorblind readers can distinguish the colors; in gray
# the first three are black, medium and light; line styles differ as well.
STYLES = {
    "cross-entropy": {"color": "#222222", "linestyle": DASHED, "marker": "o", "zorder": 4},
    "self-distillation": {"color": "#0072B2", "linestyle": "-", "marker": "s", "zorder": 2},
    "self-distillation, previous epoch": {
        "color": "#E69F00",
        "linestyle": (0, (6, 1, 1, 1)),
        "marker": "^",
        "zorder": 3,
    },
}
OTHER_STYLES = (
    {"color": "#CC79A7", "linestyle": (0, (1, 1)), "marker": "v", "zorder": 3},
    {"color": "#009E73", "linestyle": (0, (3, 1, 1, 1, 1, 1)), "marker": "D", "zorder": 3},
    {"color": "#56B4E9", "linestyle": (0, (8, 2)), "marker": "P", "zorder": 3},
    {"color": "#D55E00", "linestyle": (0, (2, 2)), "marker": "X", "zorder": 3},
)


# What figures call the noise of a data set; other label files go by their own name.
NOISE_TITLES = {
    "pair": "pair flip",
    "CIFAR-10_human-worse_label": "human (CIFAR-10N)",
    "CIFAR-10_human-worse_label-matched": "human, matched",
}


def noise_title(data: dict) -> str:
    """The noise of a history.json's `data` and its rate, as in: pair flip, 40% wrong."""
    name = NOISE_TITLES.get(data["noise"], data["noise"])
    return f"{name}, {100 * data['rate_found']:.3g}% wrong"


def save(make: Callable[[], Figure], path: Path) -> None:
    """Make a figure in the project's style and write it, whole or not at all.

    Raises what `make` raises, and OSError if the file cannot be written.
    """
    try:
        with plt.rc_context(PARAMETERS):
            figure = make()
            with atomic_write(path) as file:
                figure.savefig(file, format="png")
    finally:
        plt.close("all")


def subplots(rows: int, columns: int, **options) -> tuple[Figure, np.ndarray]:
    """A figure and its axes (rows, columns), laid out so that nothing overlaps."""
    return plt.subplots(rows, columns, layout="constrained", squeeze=False, **options)


def draw(axes: Axes, values: np.ndarray, **style) -> None:
    """Mean over runs of values (runs, epochs), with a band from the lowest to the highest."""
    epochs = np.arange(1, values.shape[1] + 1)
    marker = style.pop("marker", "o") if len(epochs) == 1 else None  # one point has no line
    axes.plot(epochs, values.mean(0), **{**style, "marker": marker})
    if len(values) > 1:
        band = {"color": style["color"], "alpha": 0.2, "linewidth": 0}
        axes.fill_between(epochs, values.min(0), values.max(0), **band)


def label_axes(axes: Axes, ylabel: str, title: str) -> None:
    """Label a panel over epochs."""
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.set_title(title, fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def label_bottom_row(axes: np.ndarray) -> None:
    """Label the x axis in the bottom row only, of axes (rows, columns) that share it."""
    for panel in axes[:-1].flat:
        panel.set_xlabel("")


def loss_styles(losses) -> dict[str, dict]:
    """The style of each loss."""
    others = [loss for loss in losses if loss not in STYLES]
    more = {loss: OTHER_STYLES[k % len(OTHER_STYLES)] for k, loss in enumerate(others)}
    return {loss: STYLES.get(loss) or more[loss] for loss in losses}


def draw_losses(axes: Axes, groups: dict, curve: Curve, ylabel: str, title: str) -> None:
    """One line for each loss, over epochs."""
    for loss, style in loss_styles(groups).items():
        draw(axes, stack([curve(run) for run in groups[loss].values()]), label=loss, **style)
    label_axes(axes, ylabel, title)


def draw_difference(axes: Axes, groups: dict, curve: Curve, ylabel: str) -> None:
    """Each other loss minus the first: seed by seed, or by means if the losses share no seed."""
    axes.axhline(0, color="black", linewidth=0.8)
    first, *others = groups
    label_axes(axes, ylabel, f"minus {first}")
    if not others:
        axes.text(0.5, 0.5, "one loss only", transform=axes.transAxes, ha="center")
    baseline = groups[first]
    for loss in others:
        runs = groups[loss]
        pairs = [stack([curve(baseline[s]), curve(runs[s])]) for s in baseline if s in runs]
        if not pairs:
            both = (baseline, runs)
            means = [stack([curve(run) for run in group.values()]).mean(0) for group in both]
            pairs = [stack(means)]
        draw(axes, stack([pair[1] - pair[0] for pair in pairs]), **loss_styles(groups)[loss])


def caption(history: dict, groups: dict, several: str = "band: lowest to highest") -> str:
    """What the figure shows: data, noise, network, sizes, seeds, and how seeds are combined."""
    data, network = history["data"], history["runs"][0]["network"]
    seeds = {loss: ", ".join(map(str, sorted(runs, key=str))) for loss, runs in groups.items()}
    if len(set(seeds.values())) == 1:
        text = next(iter(seeds.values()))
        seeds_text = f"seeds {text}" if "," in text else f"seed {text}"
    else:
        seeds_text = "; ".join(f"{loss} seeds {seeds[loss]}" for loss in seeds)
    if any(len(runs) > 1 for runs in groups.values()):
        seeds_text += f"; {several}"
    return (
        f"{data['title']}, {noise_title(data)}, {network}\n"
        f"{data['train_size']} training and {data['test_size']} test images, {seeds_text}"
    )


def add_caption_and_legend(figure: Figure, history: dict, groups: dict, axes: Axes) -> Figure:
    """Add a caption above, and the legend of `axes` in a row below, where it hides no curve."""
    figure.suptitle(caption(history, groups), fontsize=9)
    handles, labels = axes.get_legend_handles_labels()
    columns = min(len(labels), max(2, int(figure.get_figwidth() / 2.3)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    return figure
