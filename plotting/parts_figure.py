"""How much of each part of the noisy labels is learned, by frequency."""

from analysis.curves import (
    delta_index,
    frequency_curve,
    frequency_section,
    middle_delta,
    stack,
)
from analysis.label_parts import PARTS
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from plotting.style import DASHED, caption, draw, label_axes, loss_styles, subplots

TITLES = {
    "clean": "clean labels",
    "transition": "transition (which class becomes which)",
    "individual": "individual noise (which image)",
}
BANDS = {"low": "-", "high": DASHED}


def learned_parts_figure(history: dict, groups: dict, delta: float | None) -> Figure:
    """A panel for each part: the losses as lines, low solid and high dashed, the ideal dotted.

    Raises UserError if the parts have not been measured, or not at this delta.
    """
    names = [f"{part}_{band}" for part in PARTS for band in BANDS]
    section = frequency_section(history, "probe", names)
    column = delta_index(section["delta"], delta, default=middle_delta(section["delta"]))
    outputs = section["outputs"]
    parts = [part for part in PARTS if outputs[f"{part}_low"][0][column] is not None]
    figure, (axes,) = subplots(1, len(parts), figsize=(4.4 * len(parts), 4.4), sharey=True)
    for panel, part in zip(axes, parts, strict=True):
        for loss, style in loss_styles(groups).items():
            for band, linestyle in BANDS.items():
                curve = frequency_curve("probe", f"{part}_{band}", column)
                values = stack([curve(run) for run in groups[loss].values()])
                line = {"color": style["color"], "zorder": style["zorder"]}
                draw(panel, values, linestyle=linestyle, **line)
        ideal = section["ideal"][f"{part}_low"][column]
        panel.axhline(ideal, color="black", linestyle=":", linewidth=1)
        label_axes(panel, "", TITLES[part])
    axes[0].set_ylabel("share learned (least-squares coefficient)")
    figure.suptitle(
        f"{caption(history, groups)}\n$\\delta$ = {section['delta'][column]:g} on {section['n']} "
        "training images; the ideal predictor knows the class and memorizes nothing",
        fontsize=9,
    )
    add_legend(figure, groups)
    return figure


def add_legend(figure: Figure, groups: dict) -> None:
    """Add a legend: the losses by color, the bands by line style, and the ideal predictor."""
    handles = [
        Line2D([], [], color=style["color"], label=loss)
        for loss, style in loss_styles(groups).items()
    ]
    for band, linestyle in BANDS.items():
        handles.append(Line2D([], [], color="gray", linestyle=linestyle, label=f"{band} frequency"))
    handles.append(Line2D([], [], color="black", linestyle=":", label="ideal predictor"))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
