"""The figure of spectrum.json: coefficients and energies along eigenvectors."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from synthetic_runs import EDGES, LOSSES, make_run, make_runs

from analysis.history import by_noise
from common.command_line import UserError
from plotting.spectrum import EARLIER_EPOCHS, SHADES, band_middles, eigenvectors
from plotting.style import RIGHT, STYLES, WRONG

SEEDS = (0, 1, 2)


def with_kernel(run, **changes):
    """The run with one more kernel in its spectrum.json."""
    kernels = run.spectrum["kernels"]
    return replace(run, spectrum={**run.spectrum, "kernels": [*kernels, {**kernels[0], **changes}]})


def without_energy(run):
    """spectrum.json whose clean labels have no energy."""
    (kernel,) = run.spectrum["kernels"]
    return {
        **run.spectrum,
        "kernels": [{**kernel, "energies": {**kernel["energies"], "clean": None}}],
    }


def curves(axes, color):
    return [
        line.get_data()
        for line in axes.get_lines()
        if to_hex(line.get_color()).upper() == color.upper()
    ]


def test_middles_are_geometric_means_of_first_and_last_index():
    expected = [np.sqrt(a * (b - 1)) for a, b in itertools.pairwise(EDGES)]
    np.testing.assert_allclose(band_middles(EDGES), expected)


@pytest.mark.parametrize("noises", [("pair",), ("pair", "symmetric")])
def test_lines_are_means_over_seeds_at_the_last_epoch(noises):
    noises = by_noise(make_runs(seeds=SEEDS, noises=noises))
    figure = eigenvectors(noises, None)
    for row, series in enumerate(noises.values()):
        panels = figure.axes[3 * row : 3 * row + 3]
        for panel, part in zip(panels, ("clean", "residual"), strict=False):
            for title, runs in series.items():
                ((x, y),) = curves(panel, STYLES[title][0])
                last = [r.spectrum["kernels"][0]["softmax"][part][-1] for r in runs.values()]
                np.testing.assert_allclose(y, np.mean(last, axis=0)[-len(y) :])
                assert x[0] >= 5 and len(x) == sum(band_middles(EDGES) >= 5)


def test_cross_entropy_is_shown_at_earlier_epochs_from_light_to_dark():
    noises = by_noise(make_runs(seeds=SEEDS))
    panel = eigenvectors(noises, None).axes[1]
    runs = noises["pair flip, 40% wrong"]["cross-entropy"].values()
    for fraction, shade in zip(EARLIER_EPOCHS, SHADES, strict=True):
        ((_, y),) = curves(panel, shade)
        values = [
            run.spectrum["kernels"][0]["softmax"]["residual"][round(40 * fraction) - 1]
            for run in runs
        ]
        np.testing.assert_allclose(y, np.mean(values, axis=0)[-len(y) :])


def test_energies_add_up_to_one():
    panel = eigenvectors(by_noise(make_runs()), None).axes[2]
    for color, part in ((RIGHT, "clean"), (WRONG, "residual")):
        ((x, y),) = curves(panel, color)
        energies = make_run().spectrum["kernels"][0]["energies"][part]
        np.testing.assert_allclose(y, [sum(energies[: k + 1]) for k in range(len(energies))])
        assert y[-1] == pytest.approx(1) and x[-1] == EDGES[-1] - 1


def test_each_kernel_has_a_row_with_its_seeds():
    runs = make_runs(seeds=SEEDS)
    runs = [
        with_kernel(run, kernel="ntk-final", delta=None) if not run.seed else run for run in runs
    ]
    runs = [with_kernel(run, delta=100.0) for run in runs]
    figure = eigenvectors(by_noise(runs), None)
    names = [" ".join(figure.axes[k].get_ylabel().split()) for k in (0, 3)]
    assert names == [
        "pair flip, 40% wrong gaussian, δ = 564, 3 seeds",
        "pair flip, 40% wrong ntk-final, 1 seed",
    ]
    figure = eigenvectors(by_noise(runs), 120.0)
    assert "δ = 100, 3 seeds" in figure.axes[0].get_ylabel()


def test_runs_without_a_spectrum_are_left_out_and_counted():
    runs = [*make_runs(LOSSES[:2], SEEDS), make_run(seed=3, measured=False)]
    text = eigenvectors(by_noise(runs), None)._suptitle.get_text().replace("\n", " ")
    assert "1 without spectrum.json" in text and "seeds 0 to 2" in text


def test_a_part_without_energy_has_no_line():
    runs = [replace(run, spectrum=without_energy(run)) for run in make_runs(LOSSES[:1])]
    panel = eigenvectors(by_noise(runs), None).axes[2]
    assert not curves(panel, RIGHT)


def test_without_spectra_the_command_is_named():
    with pytest.raises(UserError, match=r"run frequency\.py --eigenvectors"):
        eigenvectors(by_noise(make_runs(measured=False)), None)


def test_samples_of_different_sizes_are_not_averaged():
    runs = make_runs(LOSSES[:1])
    kernel = runs[1].spectrum["kernels"][0]
    content = {**runs[1].spectrum, "kernels": [{**kernel, "edges": [1, *EDGES[1:-1], 2000]}]}
    with pytest.raises(UserError, match="samples of different sizes"):
        eigenvectors(by_noise([runs[0], replace(runs[1], spectrum=content)]), None)


def test_without_wrong_labels_there_is_no_figure():
    with pytest.raises(UserError, match="no label of this data set is wrong"):
        eigenvectors(by_noise(make_runs(noises=("none",), rate=0)), None)
