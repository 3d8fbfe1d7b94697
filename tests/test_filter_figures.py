"""plotting/filter_figures.py and path_figure.py on runs whose equivalent epochs are known."""

import numpy as np
import pytest
from helpers import panel_lines
from histories import (
    BANDS,
    DISTILLED,
    DRAWS,
    EPOCHS,
    PLAIN,
    half_as_fast,
    make_spectrum_run,
    shares,
)

from common.command_line import UserError
from plotting.filter_figures import band_middles, filter_figure, kernel_figure
from plotting.path_figure import path_figure


@pytest.fixture
def history():
    return half_as_fast()


def test_the_path_is_half_as_fast_at_distance_zero(history):
    path, distance = path_figure([history]).axes
    lines = panel_lines(path)
    np.testing.assert_array_equal(lines[DISTILLED], [1, 1, 2, 2, 3, 3])
    assert PLAIN not in lines
    mean, step = distance.get_lines()
    np.testing.assert_allclose(mean.get_ydata(), 0, atol=1e-12)
    weights = np.arange(1, len(BANDS)) ** -0.1 / EPOCHS
    np.testing.assert_allclose(step.get_ydata(), np.sqrt(np.mean(weights**2)))


def test_every_noise_has_a_column_of_paths(history):
    assert len(path_figure([history] * 3).axes) == 6


def test_the_filter_figure_shows_five_epochs_and_the_last_of_distillation(history):
    clean, individual = filter_figure([history]).axes
    assert "last epoch is like epoch 3 (3 to 3) of cross-entropy" in clean.get_title()
    *plain, distilled = individual.get_lines()
    shown = band_middles(BANDS) >= 5
    for line, epoch in zip(plain, (0, 1, 3, 4, 5), strict=True):
        expected = np.mean([shares(draw, epoch)["individual"] for draw in DRAWS], axis=0)
        np.testing.assert_allclose(line.get_ydata(), expected[shown])
    expected = np.mean([shares(draw, 2)["individual"] for draw in DRAWS], axis=0)
    np.testing.assert_allclose(distilled.get_ydata(), expected[shown])


def test_the_kernel_figure_adds_up_energies(history):
    (panel,) = kernel_figure([history]).axes
    for line in panel.get_lines():  # both parts and shuffled labels; no transition
        np.testing.assert_allclose(line.get_ydata(), np.arange(1, 6) / 5)
    assert len(panel.get_lines()) == 3


def test_the_kernel_after_training_has_a_panel_for_each_loss(history):
    for run in history["runs"]:
        (entry,) = run["spectrum"]["kernels"]
        first = [1 if run["loss"] == PLAIN else 0, 0, 0, 0, 0]
        final = {"kernel": "ntk-final", "delta": None, "epoch": EPOCHS, "vectors": "unit"}
        energies = {**entry["energies"], "individual": [*first[:-1], 1 - first[0]]}
        run["spectrum"]["kernels"] = [entry, {**entry, **final, "energies": energies}]
    figure = kernel_figure([history])
    plain, distilled = figure.axes[1:]
    assert [axes.get_title().split("\n")[-1] for axes in figure.axes[1:]] == [PLAIN, DISTILLED]
    assert plain.get_lines()[1].get_ydata().tolist() == [1] * 5
    assert distilled.get_lines()[1].get_ydata().tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("figure", [path_figure, filter_figure, kernel_figure])
def test_a_run_without_spectrum_names_the_command(history, figure):
    del history["runs"][0]["spectrum"]
    with pytest.raises(UserError, match="no spectrum"):
        figure([history])


def test_a_path_needs_cross_entropy_of_the_same_draw(history):
    history["runs"] = [make_spectrum_run(PLAIN, 2, range(EPOCHS)), *history["runs"][2:]]
    with pytest.raises(UserError, match="no distilled run"):
        path_figure([history])
