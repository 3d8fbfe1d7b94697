"""plotting/filter_figures.py and path_figure.py on runs whose equivalent epochs are known."""

import numpy as np
import pytest
from helpers import panel_lines

from common.errors import UserError
from plotting.filter_figures import band_middles, filter_figure, kernel_figure
from plotting.path_figure import path_figure

EPOCHS, BANDS = 6, [1, 2, 4, 8, 16, 32]
DRAWS = (0, 1)
PLAIN, DISTILLED = "cross-entropy", "self-distillation"


def shares(draw, epoch):
    """[part][band]: they grow with the epoch, and fall with the index."""
    bands = np.arange(1, len(BANDS))
    individual = (epoch + 1) / EPOCHS / bands**0.1 + 0.01 * draw
    return {"clean": 1 - 0.02 * bands, "individual": individual}


def make_run(loss, draw, epochs):
    """A run that has learned at each epoch what cross-entropy has at `epochs`."""
    profiles = [shares(draw, epoch) for epoch in epochs]
    values = {
        part: [profile[part].tolist() for profile in profiles] for part in ("clean", "individual")
    }
    values["transition"] = [[None] * (len(BANDS) - 1)] * EPOCHS  # a multiple of the clean labels
    energy = [1 / (len(BANDS) - 1)] * (len(BANDS) - 1)
    entry = {
        **{"kernel": "gaussian", "delta": 1600.0, "vectors": None, "epoch": None, "bands": BANDS},
        "energies": {"clean": energy, "transition": energy, "individual": energy},
        "shares": {"softmax": values},
        "shuffled": energy,
    }
    return {
        **{"run": f"{loss}-{draw}", "loss": loss, "network": "small_cnn", "seed": draw},
        "settings": {"model": "small_cnn", "epochs": EPOCHS, "lr": 0.05, "seed": draw},
        "data": {"name": f"small-seed{draw}", "digest": f"{draw}", "seed": draw},
        "spectrum": {"n": 31, "kernels": [entry]},
        "history": {"test_accuracy": [50.0 + epoch for epoch in epochs]},
        "memorization": {"curves": {"gap": [10.0 * epoch for epoch in epochs]}},
    }


@pytest.fixture
def history():
    """Two draws; distillation's epochs 1, 2, ... are like 1, 1, 2, 2, 3, 3 of cross-entropy."""
    half = [epoch // 2 for epoch in range(EPOCHS)]
    runs = [make_run(PLAIN, draw, range(EPOCHS)) for draw in DRAWS]
    runs += [make_run(DISTILLED, draw, half) for draw in DRAWS]
    return {"data": {"title": "shapes", "noise": "pair", "rate_found": 0.4}, "runs": runs}


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
    history["runs"] = [make_run(PLAIN, 2, range(EPOCHS)), *history["runs"][2:]]
    with pytest.raises(UserError, match="no distilled run"):
        path_figure([history])
