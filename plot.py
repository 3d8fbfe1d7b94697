"""Draw the figures of a study as PNG files.

    python plot.py                        every run under runs/
    python plot.py runs/cifar10-pair40    these runs only
    python plot.py history.json           what collect_history.py collected
    python plot.py --delta 800            another variance of the filter where a figure shows one

accuracy, loss and memorization are over epochs; frequency, convergence, learned_parts and spectrum
show what frequency.py measured. Several seeds of one loss become their mean, with a band from the
lowest to the highest seed.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import matplotlib
import numpy as np

import runs
from collect_history import (
    Curve,
    by_loss,
    collect,
    column_of,
    measured,
    of_frequency,
    of_history,
    stack,
)

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # the backend has to be chosen first
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

DASHED = (0, (4, 1.2))
# Two colours that the colour-blind tell apart and that differ in grey; the line's style as well.
STYLES = {
    "cross-entropy": {"color": "#D55E00", "linestyle": DASHED, "zorder": 3},
    "self-distillation": {"color": "#0072B2", "linestyle": "-", "zorder": 2},
}
# What is learnt of the labels: the colour tells the part, the style the band.
PART_STYLES = {
    "true_low": ("true labels, low", {"color": "#009E73", "linestyle": "-"}),
    "true_high": ("true labels, high", {"color": "#009E73", "linestyle": DASHED}),
    "noise_low": ("noise, low", {"color": "#CC79A7", "linestyle": "-"}),
    "noise_high": ("noise, high", {"color": "#CC79A7", "linestyle": DASHED}),
}
PARAMETERS = {"axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False}
PARAMETERS |= {"axes.spines.right": False, "savefig.dpi": 150, "lines.linewidth": 1.6}
SUBPLOTS = partial(plt.subplots, layout="constrained", squeeze=False)


def draw(axes: Axes, values: np.ndarray, **style) -> None:
    """Mean over runs of (runs, epochs), with a band from the lowest to the highest."""
    epochs = np.arange(1, values.shape[1] + 1)
    marker = "o" if len(epochs) == 1 else None  # one point has no line
    axes.plot(epochs, values.mean(0), marker=marker, **style)
    if len(values) > 1:
        band = {"color": style["color"], "alpha": 0.2, "linewidth": 0}
        axes.fill_between(epochs, values.min(0), values.max(0), **band)


def label_axes(axes: Axes, ylabel: str, title: str) -> None:
    axes.set(xlabel="epoch", ylabel=ylabel)
    axes.set_title(title, fontsize=10)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def draw_losses(axes: Axes, groups: dict, curve: Curve, ylabel: str, title: str) -> None:
    """One line a loss."""
    for loss, seeds in groups.items():
        draw(axes, stack([curve(run) for run in seeds.values()]), label=loss, **STYLES[loss])
    label_axes(axes, ylabel, title)


def draw_difference(axes: Axes, groups: dict, curve: Curve, ylabel: str) -> None:
    """Self-distillation minus cross-entropy: seed by seed, of means where no seed is common."""
    axes.axhline(0, color="black", linewidth=0.8)
    label_axes(axes, ylabel, "self-distillation minus cross-entropy")
    if len(groups) < 2:
        axes.text(0.5, 0.5, "one loss only", transform=axes.transAxes, ha="center")
        return
    plain, distilled = groups.values()
    pairs = [stack([curve(plain[s]), curve(distilled[s])]) for s in plain if s in distilled]
    if not pairs:
        means = [stack([curve(run) for run in g.values()]).mean(0) for g in (plain, distilled)]
        pairs = [stack(means)]
    draw(axes, stack([pair[1] - pair[0] for pair in pairs]), color="#333333")


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
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    return figure


def accuracy_figure(history: dict, groups: dict) -> Figure:
    figure, axes = plt.subplot_mosaic("ab;cc", figsize=(9, 7), layout="constrained")
    curves = (("a", "train", "training images, given labels"), ("b", "test", "test images"))
    for panel, part, title in curves:
        draw_losses(axes[panel], groups, of_history(f"{part}_accuracy"), "accuracy (%)", title)
    draw_difference(axes["c"], groups, of_history("test_accuracy"), "test accuracy (points)")
    return finish(figure, history, groups, axes["a"])


LOSS_PANELS = (
    ("train_cross_entropy", "cross-entropy (nats)", "training images, given labels"),
    ("test_cross_entropy", "cross-entropy (nats)", "test images, true labels"),
    ("train_objective", "objective (nats)", "each loss's own objective: not comparable"),
)
MEMORIZATION_PANELS = (
    ("memorized", "predicted as their wrong label (%)", "wrongly labelled training images"),
    ("train_clean_accuracy", "accuracy (%)", "training images, true labels"),
)


def history_figure(history: dict, groups: dict, panels: Sequence[tuple[str, str, str]]) -> Figure:
    """Panels (curve, axis label, title) in a row. Raises RunError if a curve has no values."""
    figure, (axes,) = SUBPLOTS(1, len(panels), figsize=(4.2 * len(panels), 4.5))
    for panel, (name, ylabel, title) in zip(axes, panels, strict=True):
        if history["runs"][0]["history"][name][0] is None:
            raise runs.RunError(f"no `{name}`: no label of this data set is wrong")
        draw_losses(panel, groups, of_history(name), ylabel, title)
    return finish(figure, history, groups, axes[0])


def frequency_figure(history: dict, groups: dict, delta: float | None) -> Figure:
    """The original's figure: both ratios at one delta, and what true and shuffled labels have."""
    panels = (
        ("delta_norm", "$|y_{low}|\\,/\\,(|y_{low}|+|y_{high}|)$", "Delta by norms"),
        ("energy_share", "$|y_{low}|^2/(|y_{low}|^2+|y_{high}|^2)$", "share of the energy"),
    )
    test = measured(history, "test", [measure for measure, _, _ in panels])
    column = column_of(test["delta"], delta, default=400)
    values = history["runs"][0]["frequency"]["values"]
    figure, axes = SUBPLOTS(2, 2, figsize=(9, 7), sharex=True)
    for (upper, lower), (measure, ylabel, title) in zip(axes.T, panels, strict=True):
        curve = of_frequency("test", measure, column)
        title = f"{title}, {values}, $\\delta$ = {test['delta'][column]:g}"
        draw_losses(upper, groups, curve, ylabel, title)
        levels = (
            ("true labels", test["labels"]["true"], ":"),
            ("shuffled", test["shuffled"], "-."),
        )
        for name, of_level, linestyle in levels:
            style = {"color": "black", "linewidth": 1, "linestyle": linestyle, "label": name}
            upper.axhline(of_level[measure][column], **style)
        draw_difference(lower, groups, curve, "difference")
    return finish(figure, history, groups, axes[0, 0])


def convergence_figure(history: dict, groups: dict) -> Figure:
    """Errors of the low and the high part against the true labels, for three deltas."""
    deltas = measured(history, "test", ["e_low", "e_high"])["delta"]
    columns = sorted({len(deltas) * k // 9 for k in (3, 5, 7)})
    size = (4 * len(columns), 6.5)
    figure, axes = SUBPLOTS(2, len(columns), figsize=size, sharex=True, sharey=True)
    for panels, column in zip(axes.T, columns, strict=True):
        for panel, band in zip(panels, ("low", "high"), strict=True):
            curve = of_frequency("test", f"e_{band}", column)
            title = f"{band} frequency, $\\delta$ = {deltas[column]:g}"
            draw_losses(panel, groups, curve, f"relative error $e_{{{band}}}$", title)
    return finish(figure, history, groups, axes[0, 0])


def learned_parts_figure(history: dict, groups: dict, delta: float | None) -> Figure:
    """How much of the true labels and of the noise is learnt, by band; a panel for each loss."""
    probe = measured(history, "probe", [f"learned_{part}" for part in PART_STYLES])
    # Where a filtered value is a mean of tens of points, both bands hold much of the labels.
    column = column_of(probe["delta"], delta, default=probe["delta"][len(probe["delta"]) * 5 // 9])
    figure, (axes,) = SUBPLOTS(
        1, len(groups), figsize=(4.8 * len(groups), 5), sharex=True, sharey=True
    )
    title = f"{probe['n']} training images, $\\delta$ = {probe['delta'][column]:g}"
    for panel, (loss, seeds) in zip(axes, groups.items(), strict=True):
        for part, (label, style) in PART_STYLES.items():
            curve = of_frequency("probe", f"learned_{part}", column)
            draw(panel, stack([curve(run) for run in seeds.values()]), label=label, **style)
        label_axes(panel, "share learnt (least-squares coefficient)", f"{loss}\n{title}")
    return finish(figure, history, groups, axes[0])


def spectrum_figure(history: dict, groups: dict) -> Figure:
    """Excess low-frequency ratio over epoch and delta, of each loss and their difference."""
    deltas = measured(history, "test", ["excess"])["delta"]
    curves = [of_frequency("test", "excess", column) for column in range(len(deltas))]
    maps = {
        loss: np.stack([stack([curve(run) for run in seeds.values()]).mean(0) for curve in curves])
        for loss, seeds in groups.items()
    }
    epochs = min(values.shape[1] for values in maps.values())
    maps = {loss: values[:, :epochs] for loss, values in maps.items()}
    style = {"vmin": 0, "vmax": max(values.max() for values in maps.values()), "cmap": "viridis"}
    panels = {loss: (values, style) for loss, values in maps.items()}
    if len(maps) == 2:
        difference = maps["self-distillation"] - maps["cross-entropy"]
        largest = np.abs(difference).max() or 1
        style = {"vmin": -largest, "vmax": largest, "cmap": "PuOr"}
        panels["self-distillation minus cross-entropy"] = (difference, style)
    figure, (axes,) = SUBPLOTS(1, len(panels), figsize=(4.6 * len(panels), 4.2))
    for panel, (title, (values, style)) in zip(axes, panels.items(), strict=True):
        edges = np.arange(epochs + 1) + 0.5, np.arange(len(deltas) + 1) - 0.5
        image = panel.pcolormesh(*edges, values, **style)
        panel.set_yticks(range(len(deltas)), [f"{delta:g}" for delta in deltas])
        panel.grid(False)
        label_axes(panel, "$\\delta$ (squared normalised pixels)", title)
        figure.colorbar(image, ax=panel, label="excess low-frequency ratio, test images")
    figure.suptitle(caption(history, groups, "mean over seeds"), fontsize=9)
    return figure


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,  # so that an error is one line
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", nargs="*", type=Path, help="a history.json, or runs or folders of them")
    add("--runs", type=Path, default=Path("runs"), help="the runs' folder (default runs)")
    add("--delta", type=float, help="in frequency.png (default 400) and learned_parts.png (564)")
    add("--out", type=Path, default=Path("figures"), help="default figures")
    return parser.parse_args(argv)


def read_source(args: argparse.Namespace) -> dict:
    """The history to draw: read where a file is named, collected from the runs otherwise."""
    files = [path for path in args.source if path.suffix == ".json"]
    if files and len(args.source) > 1:
        raise runs.RunError(f"{files[0]} and more named; name one history.json, or runs")
    if files:
        history = runs.read_json(files[0], "make it with collect_history.py")
        if not {"data", "runs"} <= set(history) or not history["runs"]:
            raise runs.RunError(f"{files[0]}: not a history.json; make it with collect_history.py")
        return history
    history, notes = collect(args.source or [args.runs])
    for note in notes:
        print(f"plot.py: {note}", file=sys.stderr)
    return history


def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    figures = {
        "accuracy": accuracy_figure,
        "loss": partial(history_figure, panels=LOSS_PANELS),
        "memorization": partial(history_figure, panels=MEMORIZATION_PANELS),
        "frequency": partial(frequency_figure, delta=args.delta),
        "convergence": convergence_figure,
        "learned_parts": partial(learned_parts_figure, delta=args.delta),
        "spectrum": spectrum_figure,
    }
    missing: dict[str, list[str]] = {}
    try:
        history = read_source(args)
        groups = by_loss(history)
        args.out.mkdir(parents=True, exist_ok=True)
        for name, make in figures.items():
            path = args.out / f"{name}.png"
            try:
                with plt.rc_context(PARAMETERS):
                    make(history, groups).savefig(path)
                print(path)
            except runs.RunError as error:
                missing.setdefault(str(error), []).append(path.name)
            plt.close("all")
    except (runs.RunError, OSError) as error:
        print(f"plot.py: {error}", file=sys.stderr)
        return 2
    for reason, names in missing.items():
        print(f"plot.py: not drawn: {', '.join(names)}: {reason}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
