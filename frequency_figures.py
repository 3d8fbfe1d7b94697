"""The figures of what frequency.py measured: the original's, and those that say what is learnt."""

import numpy as np
from matplotlib.figure import Figure

from curves import column_of, measured, middle_delta, of_frequency, stack
from drawing import (
    DASHED,
    SUBPLOTS,
    caption,
    draw,
    draw_difference,
    draw_losses,
    finish,
    label_axes,
)

# What is learnt of the labels: the colour tells the part, the style the band.
PART_STYLES = {
    "true_low": ("true labels, low", {"color": "#009E73", "linestyle": "-"}),
    "true_high": ("true labels, high", {"color": "#009E73", "linestyle": DASHED}),
    "noise_low": ("noise, low", {"color": "#CC79A7", "linestyle": "-"}),
    "noise_high": ("noise, high", {"color": "#CC79A7", "linestyle": DASHED}),
}


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
    column = column_of(probe["delta"], delta, default=middle_delta(probe["delta"]))
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
    """Excess low-frequency ratio over epoch and delta by loss, and below minus the first's."""
    deltas = measured(history, "test", ["excess"])["delta"]
    curves = [of_frequency("test", "excess", column) for column in range(len(deltas))]
    maps = {
        loss: np.stack([stack([curve(run) for run in seeds.values()]).mean(0) for curve in curves])
        for loss, seeds in groups.items()
    }
    epochs = min(values.shape[1] for values in maps.values())
    maps = {loss: values[:, :epochs] for loss, values in maps.items()}
    first, *others = maps
    differences = {loss: maps[loss] - maps[first] for loss in others}
    largest = max((np.abs(values).max() for values in differences.values()), default=0) or 1
    highest = max(values.max() for values in maps.values())
    rows = 2 if others else 1
    size = (4.6 * len(maps), 4.2 * rows)
    figure, axes = SUBPLOTS(rows, len(maps), figsize=size)
    for panels, content, style in (
        (axes[0], maps, {"vmin": 0, "vmax": highest, "cmap": "viridis"}),
        (
            axes[-1][1:] if others else [],
            differences,
            {"vmin": -largest, "vmax": largest, "cmap": "PuOr"},
        ),
    ):
        for panel, (loss, values) in zip(panels, content.items(), strict=True):
            edges = np.arange(epochs + 1) + 0.5, np.arange(len(deltas) + 1) - 0.5
            image = panel.pcolormesh(*edges, values, **style)
            panel.set_yticks(range(len(deltas)), [f"{delta:g}" for delta in deltas])
            panel.grid(False)
            title = f"{loss}\nminus {first}" if content is differences else loss
            label_axes(panel, "$\\delta$ (squared normalised pixels)", title)
            figure.colorbar(image, ax=panel, label="excess low-frequency ratio, test images")
    if others:
        axes[1][0].axis("off")
    figure.suptitle(caption(history, groups, "mean over seeds"), fontsize=9)
    return figure
