"""The figures by name: the one place where a figure is listed.

A figure is a function of (history, groups, delta): the content of history.json, its runs by loss
and seed (analysis.curves.group_by_loss), and the variance of --delta or None. It returns a
matplotlib Figure, or raises UserError that says what is missing.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from analysis.curves import group_by_loss
from common.errors import UserError
from plotting.frequency_figures import (
    convergence_figure,
    frequency_figure,
    spectrum_figure,
)
from plotting.overview_figure import overview_figure
from plotting.parts_figure import learned_parts_figure
from plotting.rate_figure import rate_figure
from plotting.style import save
from plotting.training_figures import accuracy_figure, loss_figure, memorization_figure

FIGURES: dict[str, Callable[[dict, dict, float | None], Figure]] = {
    "overview": lambda history, groups, delta: overview_figure([history]),
    "accuracy": accuracy_figure,
    "loss": loss_figure,
    "memorization": memorization_figure,
    "frequency": frequency_figure,
    "convergence": convergence_figure,
    "learned_parts": learned_parts_figure,
    "spectrum": spectrum_figure,
}


def draw_study(history: dict, delta: float | None, folder: Path) -> dict[str, list[str]]:
    """Draw every figure of a study into the folder, and print the paths.

    Returns what could not be drawn: reason -> names of files. Raises UserError if the runs have no
    common mean, OSError if a file cannot be written.
    """
    groups = group_by_loss(history)
    missing: dict[str, list[str]] = {}
    for name, figure in FIGURES.items():
        path = folder / f"{name}.png"
        try:
            save(lambda figure=figure: figure(history, groups, delta), path)
            print(path)
        except UserError as error:
            missing.setdefault(str(error), []).append(path.name)
    return missing


def draw_comparison(histories: Sequence[dict], folder: Path) -> None:
    """Draw several studies beside each other, and print the path.

    Studies of different noises give overview.png; studies that differ in their noise rate only give
    rate.png. Raises UserError if they fit neither.
    """
    noises = {history["data"]["noise"] for history in histories}
    name, figure = ("rate", rate_figure) if len(noises) == 1 else ("overview", overview_figure)
    path = folder / f"{name}.png"
    save(lambda: figure(histories), path)
    print(path)
