"""Figures of what frequency.py measured: the original's, and what was learned by frequency."""

import numpy as np
from matplotlib.figure import Figure

from analysis.curves import (
    delta_index,
    frequency_curve,
    frequency_section,
    middle_delta,
    stack,
)
from plotting.style import (
    DASHED,
    add_caption_and_legend,
    caption,
    draw,
    draw_difference,
    draw_losses,
    label_axes,
    subplots,
)

# What is learned of the labels: the color tells clean labels from noise, the line style the band.
PART_STYLES = {
    "true_low": ("clean labels, low", {"color": "#009E73", "linestyle": "-"}),
    "true_high": ("clean labels, high", {"color": "#009E73", "linestyle": DASHED}),
    "noise_low": ("noise, low", {"color": "#CC79A7", "linestyle": "-"}),
    "noise_high": ("noise, high", {"color": "#CC79A7", "linestyle": DASHED}),
}


def frequency_figure(history: dict, groups: dict, delta: float | None) -> Figure:
    """The original's figure: both ratios at one delta, and what true and shuffled labels have."""
    panels = (
        ("delta_norm", "$|y_{low}|\\,/\\,(|y_{low}|+|y_{high}|)$", "Delta by norms"),
        ("energy_share", "$|y_{low}|^2/(|y_{low}|^2+|y_{high}|^2)$", "share of the energy"),
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
    return add_caption_and_legend(figure, history, groups, axes[0, 0])


def convergence_figure(history: dict, groups: dict, delta: float | None = None) -> Figure:
    """Errors of the low and the high part against the clean labels, for three deltas."""
    deltas = frequency_section(history, "test", ["e_low", "e_high"])["delta"]
    columns = sorted({len(deltas) * k // 9 for k in (3, 5, 7)})
    size = (4 * len(columns), 6.5)
    figure, axes = subplots(2, len(columns), figsize=size, sharex=True, sharey=True)
    for panels, column in zip(axes.T, columns, strict=True):
        for panel, band in zip(panels, ("low", "high"), strict=True):
            curve = frequency_curve("test", f"e_{band}", column)
            title = f"{band} frequency, $\\delta$ = {deltas[column]:g}"
            draw_losses(panel, groups, curve, f"relative error $e_{{{band}}}$", title)
    return add_caption_and_legend(figure, history, groups, axes[0, 0])


def learned_parts_figure(history: dict, groups: dict, delta: float | None) -> Figure:
    """How much of the clean labels and of the noise is learned, by band; a panel for each loss."""
    probe = frequency_section(history, "probe", [f"learned_{part}" for part in PART_STYLES])
    column = delta_index(probe["delta"], delta, default=middle_delta(probe["delta"]))
    figure, (axes,) = subplots(
        1, len(groups), figsize=(4.8 * len(groups), 5), sharex=True, sharey=True
    )
    title = f"{probe['n']} training images, $\\delta$ = {probe['delta'][column]:g}"
    for panel, (loss, seeds) in zip(axes, groups.items(), strict=True):
        for part, (label, style) in PART_STYLES.items():
            curve = frequency_curve("probe", f"learned_{part}", column)
            draw(panel, stack([curve(run) for run in seeds.values()]), label=label, **style)
        label_axes(panel, "share learned (least-squares coefficient)", f"{loss}\n{title}")
    return add_caption_and_legend(figure, history, groups, axes[0])


def spectrum_figure(history: dict, groups: dict, delta: float | None = None) -> Figure:
    """Excess low-frequency ratio over epoch and delta by loss, and minus the first loss's."""
    deltas = frequency_section(history, "test", ["excess"])["delta"]
    curves = [frequency_curve("test", "excess", column) for column in range(len(deltas))]
    means = {
        loss: np.stack([stack([curve(run) for run in runs.values()]).mean(0) for curve in curves])
        for loss, runs in groups.items()
    }  # (deltas, epochs) each
    epochs = min(values.shape[1] for values in means.values())
    means = {loss: values[:, :epochs] for loss, values in means.items()}
    first, *others = means
    differences = {f"{loss}\nminus {first}": means[loss] - means[first] for loss in others}
    rows = 2 if others else 1
    figure, axes = subplots(rows, len(means), figsize=(4.6 * len(means), 4.2 * rows))
    highest = max(values.max() for values in means.values())
    draw_maps(figure, axes[0], means, deltas, cmap="viridis", vmin=0, vmax=highest)
    if others:
        axes[1][0].axis("off")
        largest = max(np.abs(values).max() for values in differences.values()) or 1
        limits = {"vmin": -largest, "vmax": largest}
        draw_maps(figure, axes[1][1:], differences, deltas, cmap="PuOr", **limits)
    figure.suptitle(caption(history, groups, "mean over seeds"), fontsize=9)
    return figure


def draw_maps(figure: Figure, axes: np.ndarray, maps: dict, deltas: list, **style) -> None:
    """A row of maps (deltas, epochs), each with its title and a color bar."""
    for panel, (title, values) in zip(axes, maps.items(), strict=True):
        edges = np.arange(values.shape[1] + 1) + 0.5, np.arange(len(deltas) + 1) - 0.5
        image = panel.pcolormesh(*edges, values, **style)
        panel.set_yticks(range(len(deltas)), [f"{delta:g}" for delta in deltas])
        panel.grid(False)
        label_axes(panel, "$\\delta$ (squared normalized pixels)", title)
        figure.colorbar(image, ax=panel, label="excess low-frequency ratio, test images")
