"""What the networks hold along the eigenvectors of a kernel, and the kernels themselves."""

from collections.abc import Sequence

import numpy as np
from analysis.curves import group_by_loss
from analysis.equivalent_quantities import like_epoch, spectrum_entry
from analysis.label_parts import PARTS
from analysis.spectrum_file import as_array, kernel_title
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from common.command_line import UserError
from losses import CROSS_ENTROPY, SELF_DISTILLATION
from plotting.style import DASHED, loss_styles, noise_title, subplots

ROWS = {"clean": "clean labels", "individual": "individual noise"}
FIRST_INDEX = 5  # the small bands before it scatter too much to be read
PLAIN_EPOCHS = 5  # epochs of cross-entropy that are shown, from light to dark
PART_STYLES = {
    "clean": {"color": "#222222", "linestyle": "-"},
    "transition": {"color": "#0072B2", "linestyle": DASHED},
    "individual": {"color": "#E69F00", "linestyle": (0, (6, 1, 1, 1))},
}


def filter_figure(histories: Sequence[dict]) -> Figure:
    """One column per noise: shares of clean labels and individual noise along the eigenvectors.

    Cross-entropy is shown at five epochs from light to dark gray, distillation at its last epoch in
    its color, with the equivalent epoch named. Raises UserError if a run has no spectrum.json.
    """
    check_spectra(histories)
    columns = len(histories)
    figure, axes = subplots(
        2, columns, figsize=(1.6 + 3.6 * columns, 6.6), sharex=True, sharey="row"
    )
    for panels, history in zip(axes.T, histories, strict=True):
        groups = group_by_loss(history)
        if SELF_DISTILLATION not in groups:
            raise UserError("no self-distillation in it: train it with train.py --dis=1")
        plain, distilled = groups[CROSS_ENTROPY], groups[SELF_DISTILLATION]
        epochs = shown_epochs(plain)
        for panel, part in zip(panels, ROWS, strict=True):
            for epoch, shade in zip(epochs, np.linspace(0.78, 0, len(epochs)), strict=True):
                draw_shares(panel, plain, part, epoch, color=str(shade), linestyle=DASHED)
            color = loss_styles(groups)[SELF_DISTILLATION]["color"]
            draw_shares(panel, distilled, part, -1, band=True, color=color, linewidth=2.4)
            panel.set_xscale("log")
        panels[0].set_title(
            f"{noise_title(history['data'])}\n{equivalent_text(distilled, plain)}",
            fontsize=9,
        )
        panels[-1].set_xlabel("index of the eigenvector (smooth first)")
    for panel, title in zip(axes[:, 0], ROWS.values(), strict=True):
        panel.set_ylabel(f"share of {title} learned")
    add_caption(figure, histories, epochs)
    return figure


def check_spectra(histories: Sequence[dict]) -> None:
    """Raise UserError unless every run has a spectrum.json with SPECTRUM_KERNEL."""
    for history in histories:
        if any(spectrum_entry(run) is None for run in history["runs"]):
            raise UserError("no spectrum.json in every run: run spectrum.py")


def shown_epochs(plain: dict) -> list[int]:
    """Indices of the epochs of cross-entropy that are drawn, evenly spaced to the last one."""
    shares = next(spectrum_entry(run) for run in plain.values())["shares"]["softmax"]["clean"]
    count = len(shares)
    steps = min(PLAIN_EPOCHS, count)
    return sorted({round(count * (k + 1) / steps) - 1 for k in range(steps)})


def draw_shares(axes: Axes, runs: dict, part: str, epoch: int, band: bool = False, **style) -> None:
    """Mean over draws of a part's softmax shares after an epoch, at the middle of each band."""
    entries = [spectrum_entry(run) for run in runs.values()]
    shares = np.stack([as_array(entry["shares"]["softmax"][part])[epoch] for entry in entries])
    middle = band_middles(entries[0]["bands"])
    shown = middle >= FIRST_INDEX
    middle, shares = middle[shown], shares[:, shown]
    axes.plot(middle, shares.mean(0), **style)
    if band and len(shares) > 1:
        limits = shares.min(0), shares.max(0)
        axes.fill_between(middle, *limits, color=style["color"], alpha=0.2, linewidth=0)


def band_middles(edges: Sequence[int]) -> np.ndarray:
    """Geometric middle of each band of indices, (bands,)."""
    edges = np.asarray(edges, float)
    return np.sqrt(edges[:-1] * np.maximum(edges[1:] - 1, edges[:-1]))


def equivalent_text(distilled: dict, plain: dict) -> str:
    """The equivalent epochs of the draws, as in: like epoch 21 (19 to 24) of cross-entropy."""
    likes = [like_epoch(distilled[draw], plain[draw]) for draw in distilled if draw in plain]
    epochs = [values["epoch"] for values in likes]
    if not epochs:
        return "no cross-entropy of the same draw"
    spread = "" if len(epochs) == 1 else f" ({min(epochs)} to {max(epochs)})"
    return f"last epoch is like epoch {np.mean(epochs):.0f}{spread} of cross-entropy"


def add_caption(figure: Figure, histories: Sequence[dict], epochs: Sequence[int]) -> None:
    """Add a caption that says what is shown, and the legend below."""
    data, first = histories[0]["data"], histories[0]["runs"][0]
    draws = {len(runs) for history in histories for runs in group_by_loss(history).values()}
    numbers = " or ".join(map(str, sorted(draws)))
    figure.suptitle(
        f"{data['title']}, {first['network']}, {first['spectrum']['n']} training images\n"
        f"kernel: {kernel_title(spectrum_entry(first))}; n = {numbers} draws; "
        "band: lowest to highest",
        fontsize=9,
    )
    shades = np.linspace(0.78, 0, len(epochs))
    handles = [
        Line2D(
            [], [], color=str(shade), linestyle=DASHED, label=f"cross-entropy, epoch {epoch + 1}"
        )
        for epoch, shade in zip(epochs, shades, strict=True)
    ]
    color = loss_styles([SELF_DISTILLATION])[SELF_DISTILLATION]["color"]
    label = "self-distillation (teacher: batch), last epoch"
    handles.append(Line2D([], [], color=color, linewidth=2.4, label=label))
    columns = min(3, 1 + len(histories))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)


def kernel_figure(histories: Sequence[dict]) -> Figure:
    """A panel for each noise and kernel: cumulative energy of the parts against the index.

    A trained network's tangent kernel has a column for each loss. Shuffled labels, which no kernel
    favors, are dotted. Raises UserError without spectrum.json.
    """
    check_spectra(histories)
    entries = [kernel_entries(history) for history in histories]
    titles = list(dict.fromkeys(title for kernels in entries for title in kernels))
    rows, columns = len(histories), len(titles)
    size = (1.0 + 3.2 * columns, 1.0 + 2.6 * rows)
    figure, axes = subplots(rows, columns, figsize=size, sharex=True, sharey=True)
    for panels, history, kernels in zip(axes, histories, entries, strict=True):
        for panel, title in zip(panels, titles, strict=True):
            draw_energies(panel, kernels.get(title, []))
        panels[0].set_ylabel(f"{noise_title(history['data'])}\ncumulative share of energy")
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title, fontsize=9)
    for panel in axes[-1]:
        panel.set_xlabel("index of the eigenvector")
    data, first = histories[0]["data"], histories[0]["runs"][0]
    figure.suptitle(
        f"{data['title']}, {first['spectrum']['n']} training images\n"
        "lines that coincide hide each other; a transition part that is a multiple of the clean "
        "labels is left out",
        fontsize=9,
    )
    handles = [Line2D([], [], label=part, **PART_STYLES[part]) for part in PARTS]
    handles.append(Line2D([], [], color="black", linestyle=":", label="shuffled labels"))
    figure.legend(
        handles=handles, loc="outside lower center", ncols=2 if columns == 1 else 4, frameon=False
    )
    return figure


def kernel_entries(history: dict) -> dict[str, list[dict]]:
    """The entries of spectrum.json of all runs by what a panel is called, trained kernels last.

    The tangent kernel at the end of training is a kernel of its own for each loss.
    """
    entries: dict[str, list[dict]] = {}
    for run in history["runs"]:
        for entry in run["spectrum"]["kernels"]:
            loss = f"\n{run['loss']}" if entry["kernel"] == "ntk-final" else ""
            entries.setdefault(kernel_title(entry) + loss, []).append(entry)
    return dict(sorted(entries.items(), key=lambda item: "ntk-final" in item[0]))


def draw_energies(axes: Axes, entries: Sequence[dict]) -> None:
    """Cumulative energy of each part at the end of each band, mean over runs; shuffled dotted."""
    if not entries:
        return
    ends = np.array(entries[0]["bands"][1:]) - 1
    for part, style in PART_STYLES.items():
        energies = [entry["energies"][part] for entry in entries]
        # A part that was dropped because it is a multiple of the clean one has no shares.
        shares = {x for e in entries for row in e["shares"]["softmax"][part] for x in row}
        if None not in energies and shares != {None}:
            axes.plot(ends, np.cumsum(as_array(energies).mean(0)), **style)
    axes.plot(ends, np.cumsum(entries[0]["shuffled"]), color="black", linestyle=":", linewidth=1)
    axes.set_xscale("log")
