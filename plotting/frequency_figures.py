"""Figures of frequency.py's measures: the original's figure, and what was learned by frequency."""

import numpy as np
from analysis.curves import (
    ENOUGH_MASS,
    delta_index,
    frequency_curve,
    frequency_section,
    stack,
)
from matplotlib.figure import Figure

from common.command_line import UserError
from plotting.style import (
    add_caption_and_legend,
    caption,
    draw_difference,
    draw_losses,
    label_axes,
    label_bottom_row,
    subplots,
)


def frequency_figure(history: dict, groups: dict, delta: float | None) -> Figure:
    """The original's figure: both ratios at one delta, and levels of clean and shuffled labels."""
    panels = (
        ("delta_norm", "$|y_{low}|\\,/\\,(|y_{low}|+|y_{high}|)$", "ratio of norms"),
        ("energy_share", "$|y_{low}|^2/(|y_{low}|^2+|y_{high}|^2)$", "share of energy"),
    )
    test = frequency_section(history, "test", [measure for measure, _, _ in panels])
    column = delta_index(test["delta"], delta, default=400)
    values = history["runs"][0]["frequency"]["values"]
    figure, axes = subplots(2, 2, figsize=(9, 7), sharex=True)
    for (upper, lower), (measure, ylabel, title) in zip(axes.T, panels, strict=True):
        curve = frequency_curve("test", measure, column)
        title = f"{title}, {values}, $\\delta$ = {test['delta'][column]:g}"
        draw_losses(upper, groups, curve, ylabel, title)
        levels = (
            ("clean labels", test["labels"]["true"], ":"),
            ("shuffled labels", test["shuffled"], "-."),
        )
        for name, values_by_measure, linestyle in levels:
            style = {"color": "black", "linewidth": 1, "linestyle": linestyle, "label": name}
            upper.axhline(values_by_measure[measure][column], **style)
        draw_difference(lower, groups, curve, "difference")
    label_bottom_row(axes)
    return add_caption_and_legend(figure, history, groups, axes[0, 0])


def convergence_figure(history: dict, groups: dict, delta: float | None = None) -> Figure:
    """Errors of the low and the high part against the clean labels, for three deltas.

    Deltas at which the filter reaches hardly any other image are left out.
    """
    section = frequency_section(history, "test", ["e_low", "e_high"])
    deltas = section["delta"]
    shown = usable_deltas(section)
    columns = sorted({shown[len(shown) * k // 6] for k in (0, 2, 4)})
    size = (4 * len(columns), 6.5)
    figure, axes = subplots(2, len(columns), figsize=size, sharex=True, sharey=True)
    for panels, column in zip(axes.T, columns, strict=True):
        for panel, band in zip(panels, ("low", "high"), strict=True):
            curve = frequency_curve("test", f"e_{band}", column)
            title = f"{band} frequency, $\\delta$ = {deltas[column]:g}"
            draw_losses(panel, groups, curve, f"relative error $e_{{{band}}}$", title)
            if panel not in axes[:, 0]:
                panel.set_ylabel("")
    label_bottom_row(axes)
    return add_caption_and_legend(figure, history, groups, axes[0, 0])


def spectrum_figure(history: dict, groups: dict, delta: float | None = None) -> Figure:
    """Excess low-frequency ratio over epoch and delta by loss, and minus the first loss's."""
    section = frequency_section(history, "test", ["excess"])
    curves = [frequency_curve("test", "excess", k) for k in range(len(section["delta"]))]
    means = {
        loss: np.stack([stack([curve(run) for run in runs.values()]).mean(0) for curve in curves])
        for loss, runs in groups.items()
    }  # (deltas, epochs) each
    epochs = min(values.shape[1] for values in means.values())
    means = {loss: values[:, :epochs] for loss, values in means.items()}
    first, *others = means
    differences = {f"{loss}\nminus {first}": means[loss] - means[first] for loss in others}
    rows = 2 if others else 1
    usable = usable_deltas(section)
    figure, axes = subplots(
        rows, len(means), figsize=(4.2 * len(means), 3.6 * rows), sharex=True, sharey=True
    )
    highest = max(values[usable].max() for values in means.values())
    label = "excess low-frequency ratio"
    draw_maps(figure, axes[0], means, section, label, cmap="viridis", vmin=0, vmax=highest)
    if others:
        axes[1][0].axis("off")
        label_bottom_row(axes[:, 1:])
        axes[0][0].tick_params(labelbottom=True)
        axes[1][1].tick_params(labelleft=True)
        largest = max(np.abs(values[usable]).max() for values in differences.values()) or 1
        # Blue below zero, yellow above, and of rising lightness: the sign can be read in grey too.
        style = {"cmap": "cividis", "vmin": -largest, "vmax": largest}
        draw_maps(figure, axes[1][1:], differences, section, "difference of the ratio", **style)
    axes[0][0].set_ylabel("$\\delta$ (squared normalized pixels)")
    hidden = len(section["weight"]) - len(usable)
    note = f"; {hidden} deltas that filter hardly anything are left out" if hidden else ""
    figure.suptitle(caption(history, groups, "mean over draws") + note, fontsize=9)
    return figure


def usable_deltas(section: dict) -> list[int]:
    """Indices of the deltas at which the filter averages over other images.

    section: of frequency.json. Raises UserError if there is none.
    """
    usable = [k for k, mass in enumerate(section["weight"]) if mass >= ENOUGH_MASS]
    if not usable:
        raise UserError("no delta averages over other images: run frequency.py with larger --delta")
    return usable


def draw_maps(
    figure: Figure, axes: np.ndarray, maps: dict, section: dict, label: str, **style
) -> None:
    """A row of maps (deltas, epochs) with one color bar, which has the label.

    Deltas at which the filter reaches hardly any other image are hidden.
    """
    deltas = section["delta"]
    hidden = np.array([mass < ENOUGH_MASS for mass in section["weight"]])
    for panel, (title, values) in zip(axes, maps.items(), strict=True):
        edges = np.arange(values.shape[1] + 1) + 0.5, np.arange(len(deltas) + 1) - 0.5
        shown = np.where(hidden[:, None], np.nan, values)
        image = panel.pcolormesh(*edges, shown, **style)
        panel.set_yticks(range(len(deltas)), [f"{delta:g}" for delta in deltas])
        panel.set_ylim(hidden.sum() - 0.5, len(deltas) - 0.5)
        panel.grid(False)
        label_axes(panel, "", title)
    figure.colorbar(image, ax=list(axes), label=label)


FIGURES = {
    "frequency": frequency_figure,
    "convergence": convergence_figure,
    "spectrum": spectrum_figure,
}
