"""Draw the figures of a study: accuracy, loss, frequency and memorization, as PNG files.

    python plot.py                        every run under runs/
    python plot.py runs/cifar10-pair40    these runs only
    python plot.py history.json           what collect_history.py collected
    python plot.py --delta 100            another variance of the filter in frequency.png

Several seeds of one loss become their mean, with a band from the lowest to the highest seed.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np

import runs
from collect_history import collect

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # the backend has to be chosen first
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Two colours that the colour-blind tell apart and that differ in grey; the line's style as well.
STYLES = {
    "cross-entropy": {"color": "#D55E00", "linestyle": (0, (4, 1.2)), "zorder": 3},
    "self-distillation": {"color": "#0072B2", "linestyle": "-", "zorder": 2},
}
DIFFERENCE = {"color": "#333333"}
PARAMETERS = {"axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False}
PARAMETERS |= {
    "axes.spines.right": False,
    "font.size": 10,
    "savefig.dpi": 150,
    "lines.linewidth": 1.6,
}

Curve = Callable[[dict], list]  # of one run of history.json, over its epochs


def of_history(name: str) -> Curve:
    """The curve `name` of a run's history."""
    return lambda run: run["history"][name]


def of_frequency(measure: str, delta: float) -> Curve:
    """A measure of the run's outputs at one delta, over epochs."""

    def curve(run: dict) -> list:
        column = run["frequency"]["delta"].index(delta)
        return [row[column] for row in run["frequency"]["outputs"][measure]]

    return curve


def by_loss(history: dict) -> dict[str, dict[int, dict]]:
    """loss -> seed -> run, cross-entropy first.

    Raises RunError if the runs differ in more than loss and seed, for they have no common mean.
    """
    groups: dict[str, dict[int, dict]] = {}
    first = history["runs"][0]
    for run in history["runs"]:
        settings = {k: (first["settings"].get(k), v) for k, v in run["settings"].items()}
        for name, (before, now) in settings.items():
            if before != now and name not in ("dis", "seed", "device"):
                raise runs.RunError(
                    f"runs {first['run']} and {run['run']} differ in {name}: {before}, {now}; "
                    "name the runs of one setting"
                )
        seeds = groups.setdefault(run["loss"], {})
        if run["seed"] in seeds:
            raise runs.RunError(
                f"runs {seeds[run['seed']]['run']} and {run['run']} have one loss and one seed; "
                "name one of them"
            )
        seeds[run["seed"]] = run
    return {loss: groups[loss] for loss in STYLES if loss in groups}


def stack(curves: Sequence[list]) -> np.ndarray:
    """(runs, epochs) float64 over the epochs that all curves have; NaN where there is no value."""
    epochs = min(len(curve) for curve in curves)
    return np.array([curve[:epochs] for curve in curves], dtype=float)


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
    """Self-distillation minus cross-entropy: seed by seed where both have the seed."""
    axes.axhline(0, color="black", linewidth=0.8)
    label_axes(axes, ylabel, "self-distillation minus cross-entropy")
    if len(groups) < 2:
        axes.text(0.5, 0.5, "one loss only", transform=axes.transAxes, ha="center")
        return
    plain, distilled = groups.values()
    common = sorted(set(plain) & set(distilled))
    if common:
        pairs = [stack([curve(plain[seed]), curve(distilled[seed])]) for seed in common]
        draw(axes, stack([(pair[1] - pair[0]).tolist() for pair in pairs]), **DIFFERENCE)
    else:
        means = [stack([curve(r) for r in g.values()]).mean(0) for g in (plain, distilled)]
        both = stack([mean.tolist() for mean in means])
        draw(axes, both[1:] - both[:1], **DIFFERENCE)


def caption(history: dict, groups: dict) -> str:
    """What the figure is of: data, noise, network, seeds and sizes."""
    data, network = history["data"], history["runs"][0]["network"]
    seeds = {loss: ", ".join(map(str, sorted(of_loss))) for loss, of_loss in groups.items()}
    if len(set(seeds.values())) == 1:
        of_seeds = f"seeds {next(iter(seeds.values()))}"
    else:
        of_seeds = "; ".join(f"{loss} seeds {seeds[loss]}" for loss in seeds)
    band = "; band: lowest to highest seed" if any(len(g) > 1 for g in groups.values()) else ""
    return (
        f"{data['title']}, {data['noise']} noise, {100 * data['rate_found']:.4g}% wrong labels, "
        f"{network}\n{data['train_size']} training and {data['test_size']} test images, "
        f"{of_seeds}{band}"
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


def loss_figure(history: dict, groups: dict) -> Figure:
    figure, axes = plt.subplots(1, 3, figsize=(12, 4.5), layout="constrained")
    panels = (
        ("train_cross_entropy", "cross-entropy (nats)", "training images, given labels"),
        ("test_cross_entropy", "cross-entropy (nats)", "test images, true labels"),
        ("train_objective", "objective (nats)", "each loss's own objective: not comparable"),
    )
    for panel, (name, ylabel, title) in zip(axes, panels, strict=True):
        draw_losses(panel, groups, of_history(name), ylabel, title)
    return finish(figure, history, groups, axes[0])


def frequency_figure(history: dict, groups: dict, delta: float) -> Figure:
    """Both ratios at one delta. Raises RunError where frequency.py has not measured them."""
    for run in history["runs"]:
        if run["frequency"] is None:
            raise runs.RunError(f"no frequency.json of {run['run']}: run frequency.py")
        if delta not in run["frequency"]["delta"]:
            raise runs.RunError(
                f"--delta {delta:g} is not in {run['run']}'s frequency.json: run frequency.py "
                f"--delta {delta:g}, or use one of {run['frequency']['delta']}"
            )
    figure, axes = plt.subplots(2, 2, figsize=(9, 7), layout="constrained", sharex=True)
    panels = (
        ("delta_norm", "$|y_{low}|\\,/\\,(|y_{low}|+|y_{high}|)$", "Delta by norms"),
        ("energy_share", "$|y_{low}|^2/(|y_{low}|^2+|y_{high}|^2)$", "share of the energy"),
    )
    for column, (measure, ylabel, title) in enumerate(panels):
        curve = of_frequency(measure, delta)
        title = f"{title}, softmax outputs, $\\delta$ = {delta:g}"
        draw_losses(axes[0, column], groups, curve, ylabel, title)
        first = history["runs"][0]["frequency"]
        level = first["labels"][measure][first["delta"].index(delta)]
        axes[0, column].axhline(level, color="black", linestyle=":", label="true labels")
        draw_difference(axes[1, column], groups, curve, "difference")
    return finish(figure, history, groups, axes[0, 0])


def memorization_figure(history: dict, groups: dict) -> Figure:
    """Raises RunError if no label is wrong."""
    if history["runs"][0]["history"]["memorized"][0] is None:
        raise runs.RunError("no label of this data set is wrong: nothing to memorize")
    figure, axes = plt.subplots(1, 2, figsize=(9, 4.5), layout="constrained")
    panels = (
        (
            "memorized",
            "predicted as their wrong label (%)",
            "wrongly labelled training images",
        ),
        ("train_clean_accuracy", "accuracy (%)", "training images, true labels"),
    )
    for panel, (name, ylabel, title) in zip(axes, panels, strict=True):
        draw_losses(panel, groups, of_history(name), ylabel, title)
    return finish(figure, history, groups, axes[0])


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        usage=argparse.SUPPRESS,  # so that an error is one line
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", nargs="*", type=Path, help="a history.json, or runs or folders of them")
    add("--runs", type=Path, default=Path("runs"), help="the runs' folder (default runs)")
    add("--delta", type=float, default=400.0, help="in frequency.png (default 400)")
    add("--out", type=Path, default=Path("figures"), help="default figures")
    return parser.parse_args(argv)


def read_source(args: argparse.Namespace) -> dict:
    """The history to draw: read where a file is named, collected from the runs otherwise."""
    files = [path for path in args.source if path.suffix == ".json"]
    if len(files) > 1 or (files and len(args.source) > 1):
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
    try:
        history = read_source(args)
        groups = by_loss(history)
        args.out.mkdir(parents=True, exist_ok=True)
        figures = {
            "accuracy": accuracy_figure,
            "loss": loss_figure,
            "frequency": lambda *given: frequency_figure(*given, args.delta),
            "memorization": memorization_figure,
        }
        for name, make in figures.items():
            path = args.out / f"{name}.png"
            try:
                with plt.rc_context(PARAMETERS):
                    figure = make(history, groups)
                    figure.savefig(path)
            except runs.RunError as error:
                print(f"plot.py: {path} not drawn: {error}", file=sys.stderr)
                continue
            plt.close(figure)
            print(path)
    except (runs.RunError, OSError) as error:
        print(f"plot.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
