"""Which epoch of cross-entropy each epoch of distillation is like, over the whole of training."""

from collections.abc import Sequence

import numpy as np
from analysis.curves import group_by_loss, stack
from analysis.equivalent_epoch import EpochPath
from analysis.equivalent_quantities import spectrum_entry
from analysis.run_comparison import compare_entries
from analysis.spectrum_file import kernel_title
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from common.command_line import UserError
from losses import CROSS_ENTROPY
from plotting.filter_figures import check_spectra
from plotting.style import draw, label_axes, loss_styles, noise_title, subplots


def path_figure(histories: Sequence[dict]) -> Figure:
    """One column per noise: the equivalent epoch of every epoch, and the distance to it.

    The dotted diagonal is cross-entropy itself. Raises UserError if a run has no spectrum.json, or
    if no run has a cross-entropy run of the same draw.
    """
    check_spectra(histories)
    columns = len(histories)
    figure, axes = subplots(
        2, columns, figsize=(1.6 + 3.6 * columns, 6.2), sharex=True, sharey="row"
    )
    for history, panels in zip(histories, axes.T, strict=True):
        draw_paths(panels, group_by_loss(history))
        panels[0].set_title(noise_title(history["data"]), fontsize=9)
        panels[0].set_xlabel("")
    axes[0, 0].set_ylabel("equivalent epoch of cross-entropy")
    axes[1, 0].set_ylabel("distance of the profiles (share)")
    first = histories[0]["runs"][0]
    figure.suptitle(
        f"{histories[0]['data']['title']}, {first['network']}; kernel: "
        f"{kernel_title(spectrum_entry(first))}; mean, and band from lowest to highest draw\n"
        "dotted: cross-entropy itself (top), one step of cross-entropy there (bottom)",
        fontsize=9,
    )
    handles, labels = axes[0, 0].get_legend_handles_labels()
    layout = {"loc": "outside lower center", "ncols": len(labels), "frameon": False}
    figure.legend(handles, labels, labelcolor="linecolor", **layout)
    return figure


def draw_paths(panels: Sequence[Axes], groups: dict) -> None:
    """The equivalent epochs of each loss in the first panel, the distances in the second."""
    plain, styles = groups.get(CROSS_ENTROPY, {}), loss_styles(groups)
    for loss in groups:
        draws = [draw for draw in groups[loss] if draw in plain and loss != CROSS_ENTROPY]
        if not draws:
            continue
        paths = [equivalent_path(groups[loss][draw], plain[draw]) for draw in draws]
        draw(panels[0], stack([path.nearest + 1 for path in paths]), label=loss, **styles[loss])
        draw(panels[1], stack([path.distance for path in paths]), **styles[loss])
        steps = stack([path.resolution for path in paths]).mean(0)
        dotted = {"color": styles[loss]["color"], "linestyle": ":", "linewidth": 1.2}
        panels[1].plot(np.arange(1, len(steps) + 1), steps, **dotted)
    if not panels[0].lines:
        raise UserError("no distilled run has a cross-entropy run of its draw: train.py --dis=0")
    end = stack([path.nearest for path in paths]).shape[1]
    panels[0].plot([1, end], [1, end], color="black", linestyle=":", linewidth=1)
    for panel in panels:
        label_axes(panel, "", "")
        panel.set(xlim=(1, max(end, 2)), ylim=(0, None))


def equivalent_path(run: dict, plain: dict) -> EpochPath:
    """The equivalent epochs of a run, by its softmax outputs."""
    return compare_entries(spectrum_entry(run), spectrum_entry(plain), "softmax")[0]
