"""plotting/frequency_figures.py: the lines are the measures, by loss, delta and band."""

import numpy as np
import pytest
from analysis.curves import group_by_loss
from helpers import panel_lines

from plotting.frequency_figures import (
    convergence_figure,
    frequency_figure,
    spectrum_figure,
)
from plotting.parts_figure import learned_parts_figure

STYLES = ("cross-entropy", "self-distillation")


def mean_over_seeds(history, loss, section, measure):
    """(epochs, deltas) of a measure of the outputs."""
    runs = [run for run in history["runs"] if run["loss"] == loss]
    return np.mean([run["frequency"][section]["outputs"][measure] for run in runs], axis=0)


@pytest.mark.parametrize(("delta", "column"), [(100, 0), (400, 1), (None, 1)])
def test_the_frequency_figure_shows_the_chosen_delta(study_history, delta, column):
    figure = frequency_figure(study_history, group_by_loss(study_history), delta)
    test = study_history["runs"][0]["frequency"]["test"]
    ratios = ("delta_norm", "energy_share")
    for upper, lower, ratio in zip(figure.axes[:2], figure.axes[2:], ratios, strict=True):
        lines = panel_lines(upper)
        means = [mean_over_seeds(study_history, loss, "test", ratio)[:, column] for loss in STYLES]
        for loss, mean in zip(STYLES, means, strict=True):
            np.testing.assert_allclose(lines[loss], mean)
        assert set(lines["clean labels"]) == {test["labels"]["true"][ratio][column]}
        assert set(lines["shuffled labels"]) == {test["shuffled"][ratio][column]}
        assert f"= {(100, 400)[column]}" in upper.get_title()
        _, difference = lower.get_lines()  # zero, and the difference
        np.testing.assert_allclose(difference.get_ydata(), means[1] - means[0])


def test_the_convergence_figure_has_both_bands_at_each_delta(study_history):
    section = study_history["runs"][0]["frequency"]["test"]
    section["weight"], groups = [2.5, 9.0], group_by_loss(study_history)
    figure = convergence_figure(study_history, groups)
    panels = np.array(figure.axes).reshape(2, -1)
    assert panels.shape == (2, 2)  # of two deltas there are no three
    for row, measure in zip(panels, ("e_low", "e_high"), strict=True):
        for column, panel in enumerate(row):
            for loss in STYLES:
                mean = mean_over_seeds(study_history, loss, "test", measure)[:, column]
                np.testing.assert_allclose(panel_lines(panel)[loss], mean)
            assert f"= {(100, 400)[column]}" in panel.get_title()
    section["weight"][0] = 1.9  # the first delta filters nothing: it is not shown
    titles = [axes.get_title() for axes in convergence_figure(study_history, groups).axes]
    assert len(titles) == 2 and all("= 400" in title for title in titles)


@pytest.mark.parametrize(("delta", "column"), [(100, 0), (None, 1)])
def test_the_learned_parts_figure_has_a_panel_for_each_part(study_history, delta, column):
    groups = group_by_loss(study_history)
    figure = learned_parts_figure(study_history, groups, delta)
    assert f"= {(100, 400)[column]}" in figure.get_suptitle()
    for panel, part in zip(figure.axes, ("clean", "individual"), strict=True):
        lines = [line.get_ydata() for line in panel.get_lines()]
        for loss in STYLES:
            for band in ("low", "high"):
                mean = mean_over_seeds(study_history, loss, "probe", f"{part}_{band}")[:, column]
                assert any(np.array_equal(line, mean) for line in lines)


def test_the_spectrum_figure_has_a_map_for_each_loss_and_their_difference(study_history):
    figure = spectrum_figure(study_history, group_by_loss(study_history))
    maps = [mean_over_seeds(study_history, loss, "test", "excess").T for loss in STYLES]
    images = [panel.collections[0] for panel in (*figure.axes[:2], figure.axes[3])]
    for image, values in zip(images, [*maps, maps[1] - maps[0]], strict=True):
        np.testing.assert_allclose(image.get_array(), values)
    assert images[2].norm.vmin == -images[2].norm.vmax
    assert images[0].norm.vmax == images[1].norm.vmax
