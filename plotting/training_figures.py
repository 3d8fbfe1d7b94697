"""Figures of the history of training: accuracy, loss and memorization over epochs."""

from collections.abc import Sequence

from analysis.curves import has_memorization, history_curve, memorization_curve
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.statistics import stopping_epochs
from common.command_line import UserError
from plotting.style import (
    add_caption_and_legend,
    draw_difference,
    draw_losses,
    loss_styles,
    plt,
    subplots,
)


def accuracy_figure(history: dict, groups: dict, delta: float | None = None) -> Figure:
    """Accuracy over epochs; marks on the test curves show where early stopping ends each run."""
    figure, axes = plt.subplot_mosaic("ab;cc", figsize=(9, 7), layout="constrained")
    curves = (("a", "train", "training images, noisy labels"), ("b", "test", "test images"))
    for panel, split, title in curves:
        curve = history_curve(f"{split}_accuracy")
        draw_losses(axes[panel], groups, curve, "accuracy (%)", title)
    if mark_early_stopping(axes["b"], groups):
        axes["b"].set_title("test images; marks: early stopping of each seed", fontsize=10)
    draw_difference(axes["c"], groups, history_curve("test_accuracy"), "test accuracy (points)")
    return add_caption_and_legend(figure, history, groups, axes["a"])


def mark_early_stopping(axes: Axes, groups: dict) -> bool:
    """Mark each run's early stopping on its test accuracy; returns whether any run has one."""
    marked = False
    for loss, style in loss_styles(groups).items():
        for run in groups[loss].values():
            epoch = stopping_epochs(run)["early"]
            if epoch is None:
                continue
            axes.scatter(
                [epoch + 1],
                [run["history"]["test_accuracy"][epoch]],
                color=style["color"],
                marker=style["marker"],
                s=36,
                edgecolor="black",
                linewidth=0.8,
                zorder=5,
            )
            marked = True
    return marked


def loss_figure(history: dict, groups: dict, delta: float | None = None) -> Figure:
    """Cross-entropy on training and test images, and each loss's own objective."""
    panels = (
        ("train_cross_entropy", "cross-entropy (nats)", "training images, noisy labels"),
        ("test_cross_entropy", "cross-entropy (nats)", "test images, clean labels"),
        ("train_objective", "objective (nats)", "each loss's own objective: not comparable"),
    )
    return history_figure(history, groups, panels)


def memorization_figure(history: dict, groups: dict, delta: float | None = None) -> Figure:
    """Wrong labels that are predicted; memorization gap and detection of wrong labels, if measured.

    Raises UserError if no label of the data set is wrong.
    """
    panels = [
        (
            "sample_memorized",
            "predicted as their wrong label (%)",
            "training images with a wrong label",
        ),
    ]
    if not has_memorization(history):
        clean = ("train_clean_accuracy", "accuracy (%)", "training images, clean labels")
        return history_figure(history, groups, [*panels, clean])
    figure, (axes,) = subplots(1, 3, figsize=(12.6, 4.2))
    draw_losses(axes[0], groups, history_curve("sample_memorized"), *panels[0][1:])
    draw_losses(
        *(axes[1], groups, memorization_curve("gap"), "memorization gap (points)"),
        title="accuracy on clean labels,\ncorrectly minus wrongly labeled images",
    )
    draw_losses(
        *(axes[2], groups, memorization_curve("auc"), "area under the ROC curve"),
        title="finding the wrong labels by their loss",
    )
    axes[2].axhline(0.5, color="black", linewidth=0.8, linestyle=":")
    return add_caption_and_legend(figure, history, groups, axes[0])


def history_figure(history: dict, groups: dict, panels: Sequence[tuple[str, str, str]]) -> Figure:
    """Panels (curve, axis label, title) in a row. Raises UserError if a curve has no values."""
    figure, (axes,) = subplots(1, len(panels), figsize=(4.2 * len(panels), 4.5))
    for panel, (name, ylabel, title) in zip(axes, panels, strict=True):
        if history["runs"][0]["history"][name][0] is None:
            raise UserError(f"no `{name}`: no label of this data set is wrong")
        draw_losses(panel, groups, history_curve(name), ylabel, title)
    return add_caption_and_legend(figure, history, groups, axes[0])


FIGURES = {
    "accuracy": accuracy_figure,
    "loss": loss_figure,
    "memorization": memorization_figure,
}
