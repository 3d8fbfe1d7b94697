"""The figures by name. The figures of training and of frequency are listed in their modules.

A figure is a function of (history, groups, delta): the content of history.json, its runs by loss
and seed (analysis.curves.group_by_loss), and the variance of --delta or None. It returns a
matplotlib Figure, or raises UserError that says what is missing.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from analysis.curves import group_by_loss
from matplotlib.figure import Figure

from common.command_line import UserError
from plotting import frequency_figures, training_figures
from plotting.filter_figures import filter_figure, kernel_figure
from plotting.overview_figure import overview_figure
from plotting.parts_figure import learned_parts_figure
from plotting.path_figure import path_figure
from plotting.rate_figure import rate_figure
from plotting.style import save

FIGURES: dict[str, Callable[[dict, dict, float | None], Figure]] = {
    "overview": lambda history, groups, delta: overview_figure([history]),
    **training_figures.FIGURES,
    **frequency_figures.FIGURES,
    "learned_parts": learned_parts_figure,
    "filter": lambda history, groups, delta: filter_figure([history]),
    "kernels": lambda history, groups, delta: kernel_figure([history]),
    "equivalent_epochs": lambda history, groups, delta: path_figure([history]),
}
# Figures of several studies that differ in their noise.
COMPARISONS: dict[str, Callable[[Sequence[dict]], Figure]] = {
    "overview": overview_figure,
    "filter": filter_figure,
    "kernels": kernel_figure,
    "equivalent_epochs": path_figure,
}


def draw_study(history: dict, delta: float | None, folder: Path) -> dict[str, list[str]]:
    """Draw every figure of a study into the folder, and print the paths.

    Returns what could not be drawn: reason -> names of files. Raises UserError if the runs cannot
    be averaged, OSError if a file cannot be written.
    """
    groups = group_by_loss(history)
    makers = {name: partial(figure, history, groups, delta) for name, figure in FIGURES.items()}
    return _draw_all(makers, folder)


def draw_comparison(histories: Sequence[dict], folder: Path) -> dict[str, list[str]]:
    """Draw several studies side by side into the folder, and print the paths.

    Studies of different noises give COMPARISONS; studies that differ in their noise rate only give
    rate.png. Returns what could not be drawn: reason -> names of files. Raises UserError if the
    studies fit neither.
    """
    if len({history["data"]["noise"] for history in histories}) == 1:
        return _draw_all({"rate": lambda: rate_figure(histories)}, folder, strict=True)
    makers = {name: partial(figure, histories) for name, figure in COMPARISONS.items()}
    return _draw_all(makers, folder)


def _draw_all(
    makers: dict[str, Callable[[], Figure]], folder: Path, strict: bool = False
) -> dict[str, list[str]]:
    missing: dict[str, list[str]] = {}
    for name, make in makers.items():
        path = folder / f"{name}.png"
        try:
            save(make, path)
            print(path)
        except UserError as error:
            if strict:
                raise
            missing.setdefault(str(error), []).append(path.name)
    return missing
