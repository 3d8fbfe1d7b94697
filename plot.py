"""Draw the figures of a study as PNG files.

    python plot.py                        every run under runs/
    python plot.py runs/cifar10-pair40    these runs only
    python plot.py history.json           what collect_history.py collected
    python plot.py --delta 800            another variance of the filter where a figure shows one
    python plot.py a.json b.json          accuracy against the noise rate, a history.json a rate

accuracy, loss and memorization are over epochs; frequency, convergence, learned_parts and spectrum
show what frequency.py measured. Several seeds of one loss become their mean, with a band from the
lowest to the highest seed.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

import runs
from collect_history import collect
from curves import by_loss, of_history
from drawing import (
    SUBPLOTS,
    draw_difference,
    draw_losses,
    finish,
    plt,
    styles_of,
)
from frequency_figures import (
    convergence_figure,
    frequency_figure,
    learned_parts_figure,
    spectrum_figure,
)
from summary import STOPS, stopping_epochs

PARAMETERS = {"axes.grid": True, "grid.alpha": 0.3, "axes.spines.top": False}
PARAMETERS |= {"axes.spines.right": False, "savefig.dpi": 150, "lines.linewidth": 1.6}


def accuracy_figure(history: dict, groups: dict) -> Figure:
    """Accuracy over epochs; on the test images a mark where early stopping would end each run."""
    figure, axes = plt.subplot_mosaic("ab;cc", figsize=(9, 7), layout="constrained")
    curves = (("a", "train", "training images, given labels"), ("b", "test", "test images"))
    for panel, part, title in curves:
        draw_losses(axes[panel], groups, of_history(f"{part}_accuracy"), "accuracy (%)", title)
    marked = False
    for loss, style in styles_of(groups).items():
        for run in groups[loss].values():
            if (early := stopping_epochs(run)["early"]) is not None:
                mark = {"color": style["color"], "marker": style["marker"], "s": 36, "zorder": 5}
                at = run["history"]["test_accuracy"][early]
                axes["b"].scatter([early + 1], [at], edgecolor="black", linewidth=0.8, **mark)
                marked = True
    if marked:
        axes["b"].set_title("test images; marks: each seed's early stopping", fontsize=10)
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


def rate_figure(histories: Sequence[dict]) -> Figure:
    """Test accuracy against the share of wrong labels, a panel for each way to stop.

    Raises RunError unless the histories differ in their rate only.
    """
    histories = sorted(histories, key=lambda history: history["data"]["rate_found"])
    first = histories[0]
    for history in histories:
        for name in ("title", "noise", "train_size", "test_size"):
            if history["data"][name] != first["data"][name]:
                raise runs.RunError(
                    f"{history['data']['name']} and {first['data']['name']} differ in {name}; name "
                    "histories that differ in their noise rate only"
                )
    groups = [by_loss(history) for history in histories]
    rates = [100 * history["data"]["rate_found"] for history in histories]
    figure, (axes,) = SUBPLOTS(1, len(STOPS), figsize=(12.6, 4.8), sharex=True, sharey=True)
    for panel, (stop, title) in zip(axes, STOPS.items(), strict=True):
        for loss, style in styles_of({k: 0 for group in groups for k in group}).items():
            points = []
            for rate, group in zip(rates, groups, strict=True):
                stops = [(run, stopping_epochs(run)[stop]) for run in group.get(loss, {}).values()]
                if stops and all(epoch is not None for _, epoch in stops):
                    found = [run["history"]["test_accuracy"][epoch] for run, epoch in stops]
                    points.append((rate, sum(found) / len(found), min(found), max(found)))
            if points:
                x, mean, low, high = zip(*points, strict=True)
                panel.plot(x, mean, label=loss, **style)
                panel.fill_between(x, low, high, color=style["color"], alpha=0.2, linewidth=0)
        panel.set(xlabel="wrong training labels (%)", ylabel="test accuracy (%)")
        panel.set_title(title, fontsize=10)
    several = any(len(seeds) > 1 for group in groups for seeds in group.values())
    seeds = sorted({seed for group in groups for of_loss in group.values() for seed in of_loss})
    figure.suptitle(
        f"{first['data']['title']}, {first['data']['noise']} noise, {first['runs'][0]['network']}\n"
        f"{first['data']['train_size']} training and {first['data']['test_size']} test images, "
        f"seeds {', '.join(map(str, seeds))}" + "; band: lowest to highest seed" * several,
        fontsize=9,
    )
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
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


def read_source(args: argparse.Namespace) -> list[dict]:
    """The histories to draw: read where files are named, collected from the runs otherwise."""
    files = [path for path in args.source if path.suffix == ".json"]
    if files and len(files) < len(args.source):
        raise runs.RunError(f"{files[0]} and runs named; name files of history.json, or runs")
    histories = []
    for path in files:
        history = runs.read_json(path, "make it with collect_history.py")
        if not {"data", "runs"} <= set(history) or not history["runs"]:
            raise runs.RunError(f"{path}: not a history.json; make it with collect_history.py")
        histories.append(history)
    if not files:
        history, notes = collect(args.source or [args.runs])
        for note in notes:
            print(f"plot.py: {note}", file=sys.stderr)
        histories.append(history)
    return histories


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
        histories = read_source(args)
        history = histories[0]
        groups = by_loss(history)
        if len(histories) > 1:
            figures = {"rate": lambda history, groups: rate_figure(histories)}
            with plt.rc_context(PARAMETERS):  # refused before anything is written
                rate_figure(histories)
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
