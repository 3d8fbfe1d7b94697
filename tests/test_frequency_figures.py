"""frequency_figures.py: the lines are the measures, by loss, delta and part."""

import numpy as np
import pytest
from conftest import lines

import curves
import frequency_figures
from drawing import STYLES


@pytest.mark.parametrize(("delta", "column"), [(100, 0), (400, 1)])
def test_frequency_figure_shows_the_chosen_delta(collected, delta, column):
    figure = frequency_figures.frequency_figure(collected, curves.by_loss(collected), delta)
    for panel, measure in zip(figure.axes[:2], ("delta_norm", "energy_share"), strict=True):
        for loss in STYLES:
            values = [
                np.array(run["frequency"]["test"]["outputs"][measure])[:, column]
                for run in collected["runs"]
                if run["loss"] == loss
            ]
            np.testing.assert_allclose(lines(panel)[loss], np.mean(values, axis=0))
        test = collected["runs"][0]["frequency"]["test"]
        assert set(lines(panel)["true labels"]) == {test["labels"]["true"][measure][column]}
        assert set(lines(panel)["shuffled"]) == {test["shuffled"][measure][column]}
        assert f"= {delta}" in panel.get_title()


def of_loss(history, loss, part, measure):
    """(seeds, epochs, deltas) of a measure."""
    found = [run["frequency"][part]["outputs"][measure] for run in history["runs"]]
    return np.array([v for v, r in zip(found, history["runs"], strict=True) if r["loss"] == loss])


def test_convergence_figure(collected):
    figure = frequency_figures.convergence_figure(collected, curves.by_loss(collected))
    panels = np.array(figure.axes).reshape(2, -1)
    assert panels.shape == (2, 2)  # of two deltas there are no three
    for row, measure in zip(panels, ("e_low", "e_high"), strict=True):
        for column, panel in enumerate(row):
            for loss in STYLES:
                values = of_loss(collected, loss, "test", measure)[..., column].mean(0)
                np.testing.assert_allclose(lines(panel)[loss], values)
            assert f"= {(100, 400)[column]}" in panel.get_title()


def test_learned_parts_figure(collected):
    groups = curves.by_loss(collected)
    figure = frequency_figures.learned_parts_figure(collected, groups, None)
    for panel, loss in zip(figure.axes, STYLES, strict=True):
        assert loss in panel.get_title() and "= 400" in panel.get_title()
        for part, (label, _) in frequency_figures.PART_STYLES.items():
            values = of_loss(collected, loss, "probe", f"learned_{part}")[..., 1].mean(0)
            np.testing.assert_allclose(lines(panel)[label], values)
    shown = frequency_figures.learned_parts_figure(collected, groups, 100).axes[0]
    values = of_loss(collected, "cross-entropy", "probe", "learned_noise_high")[..., 0].mean(0)
    np.testing.assert_allclose(lines(shown)["noise, high"], values)


def test_spectrum_figure(collected):
    figure = frequency_figures.spectrum_figure(collected, curves.by_loss(collected))
    maps = [of_loss(collected, loss, "test", "excess").mean(0).T for loss in STYLES]
    images = [panel.collections[0] for panel in (*figure.axes[:2], figure.axes[3])]
    for image, values in zip(images, [*maps, maps[1] - maps[0]], strict=True):
        np.testing.assert_allclose(image.get_array(), values)
    assert images[2].norm.vmin == -images[2].norm.vmax
    assert images[0].norm.vmax == images[1].norm.vmax
