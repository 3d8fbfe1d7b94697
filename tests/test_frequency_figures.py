"""Figures of frequency.json: lines equal means, the delta that is shown, what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex
from synthetic_runs import DELTAS, LOSSES, MASS, make_run, make_runs

from analysis.history import by_noise, shown_delta
from common.command_line import UserError
from plotting.frequency import (
    MILESTONES,
    choose_delta,
    errors,
    excess,
    frequency,
    order,
)
from plotting.style import RIGHT, STYLES, WRONG

SEEDS = (0, 1, 2)
FIGURES = (frequency, errors, order, excess)


@pytest.fixture
def noises():
    return by_noise(make_runs(seeds=SEEDS, noises=("pair", "symmetric")))


def with_frequency(run, change):
    """The run with other contents of frequency.json in both sections."""
    content = {**run.frequency}
    for name in ("test", "sample"):
        content[name] = {**content[name], **change}
    return replace(run, frequency=content)


def mean_of(runs, section, measure, delta):
    """Mean over runs of a measure at a delta, from the content of frequency.json by loops."""
    columns = []
    for run in runs.values():
        content = run.frequency[section]
        column = content["delta"].index(delta)
        columns.append([row[column] for row in content["outputs"][measure]])
    return [sum(values) / len(values) for values in zip(*columns, strict=True)]


def curve(axes, color, width=None):
    """The y values of the one line over epochs of a color, and of a width if given."""
    (found,) = [
        line.get_ydata()
        for line in axes.get_lines()
        if to_hex(line.get_color()).upper() == color
        and len(line.get_xdata()) > 2
        and width in (None, line.get_linewidth())
    ]
    return found


@pytest.mark.parametrize(
    ("make", "measures", "delta"),
    [
        (frequency, ("energy_share", "delta_norm"), 400),
        (errors, ("e_low", "e_high"), 564),
    ],
)
@pytest.mark.parametrize("wanted", [None, 200.0])
def test_curves_are_means_at_the_delta(noises, make, measures, delta, wanted):
    axes = iter(make(noises, wanted).axes)
    for series in noises.values():
        for measure in measures:
            panel = next(axes)
            for title, runs in series.items():
                expected = mean_of(runs, "test", measure, wanted or delta)
                np.testing.assert_allclose(curve(panel, STYLES[title][0]), expected)


def test_levels_and_milestones_are_marked(noises):
    figure = frequency(noises, None)
    for row, series in enumerate(noises.values()):
        panel = figure.axes[2 * row]
        level = [line.get_ydata()[0] for line in panel.get_lines() if len(line.get_ydata()) == 2]
        assert {0.315, 0.248} <= set(np.round(level, 6))
        gaps = np.mean([run.gap for run in series["cross-entropy"].values()], axis=0)
        expected = {}
        for points in MILESTONES:
            epoch = next(k + 1 for k, gap in enumerate(gaps) if gap >= points)
            expected.setdefault(epoch, []).append(str(points))
        texts = {t.get_text(): t.xy for t in panel.texts}
        assert texts["clean labels"][1] == pytest.approx(0.315)
        for epoch, points in expected.items():
            assert texts[", ".join(points)][0] == epoch


def test_without_cross_entropy_there_are_no_milestones():
    figure = frequency(by_noise(make_runs(LOSSES[1:])), None)
    assert {t.get_text() for t in figure.axes[0].texts} == {"clean labels", "shuffled labels"}


def test_the_order_has_four_coefficients_per_loss_and_noise(noises):
    figure = order(noises, None)
    axes = iter(figure.axes)
    for series in noises.values():
        for title, runs in series.items():
            panel = next(axes)
            assert panel.get_title().replace("\n", " ") == title
            for part, color in (("clean", RIGHT), ("residual", WRONG)):
                for band, width in (("low", 2.6), ("high", 1.1)):
                    expected = mean_of(runs, "sample", f"{part}_{band}", 564)
                    found = curve(panel, color.upper(), width)
                    np.testing.assert_allclose(found, expected)
    assert figure.axes[0].get_ylabel() == "pair flip, 40% wrong"


def test_dots_of_the_order_lie_where_a_quarter_is_learned():
    noises = by_noise(make_runs(LOSSES[:1], SEEDS))
    panel = order(noises, None).axes[0]
    dots = [line.get_data() for line in panel.get_lines() if len(line.get_xdata()) == 1]
    runs = noises["pair flip, 40% wrong"]["cross-entropy"]
    values = mean_of(runs, "sample", "residual_low", 564)
    k = next(k for k, value in enumerate(values) if value >= 0.25)
    epoch = k + (0.25 - values[k - 1]) / (values[k] - values[k - 1])
    assert any(x[0] == pytest.approx(epoch) and y[0] == pytest.approx(0.25) for x, y in dots)


def test_excess_maps_are_means_and_differences(noises):
    figure = excess(noises, None)
    filtering = [delta for delta, mass in zip(DELTAS, MASS, strict=True) if mass >= 2]
    axes = iter(figure.axes)
    for series in noises.values():
        means = {
            title: np.array([mean_of(runs, "test", "excess", delta) for delta in filtering])
            for title, runs in series.items()
        }
        for title, values in means.items():
            panel = next(axes)
            if title != "cross-entropy":
                values = values - means["cross-entropy"]
                assert panel.get_title().endswith("minus cross-entropy")
            shown = panel.collections[0].get_array()
            np.testing.assert_allclose(np.reshape(shown, values.shape), values, atol=1e-12)
    names = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert names == [f"{delta:g}" for delta in filtering]
    assert "2 δ that filter hardly anything" in figure._suptitle.get_text().replace("\n", " ")


@pytest.mark.parametrize("make", [order, excess])
def test_a_loss_that_one_noise_lacks_has_no_panel_there(make):
    runs = make_runs(LOSSES[:2]) + make_runs(LOSSES[:1], noises=("symmetric",))
    axes = [axes for axes in make(by_noise(runs), None).axes if axes.get_title()]
    names = ["cross-entropy", "self-distillation", "cross-entropy"]
    assert [panel.get_title().split("\n")[0] for panel in axes] == names


@pytest.mark.parametrize("make", FIGURES)
def test_the_longest_run_sets_the_axis_of_all_noises(make):
    runs = make_runs(epochs=40) + make_runs(epochs=12, noises=("symmetric",))
    panels = [axes for axes in make(by_noise(runs), None).axes if axes.get_label() != "<colorbar>"]
    assert all(panel.get_xlim()[1] >= 40 for panel in panels)


@pytest.mark.parametrize(
    ("wanted", "delta"), [(400, 400), (10, 200), (336, 400), (1e6, 800), (474, 400), (476, 564)]
)
def test_the_shown_delta_is_the_nearest_that_filters(wanted, delta):
    assert shown_delta({"delta": list(DELTAS), "mass": list(MASS)}, wanted) == delta


def test_the_delta_filters_in_every_run():
    weak = with_frequency(make_run(seed=1), {"mass": [1, 1, 1, 1.9, 2, None]})
    noises = by_noise([make_run(seed=0), weak])
    assert choose_delta(noises, "test", None, 400) == 564


def test_deltas_that_only_some_runs_have_are_not_shown():
    deltas = [60.0, 100.0, 200.0, 336.0, 564.0, 700.0]
    other = with_frequency(make_run(seed=1), {"delta": deltas})
    noises = by_noise([make_run(seed=0), other])
    assert choose_delta(noises, "test", None, 400) == 564
    with pytest.raises(UserError, match=r"--delta 400 .*not measured in every run"):
        choose_delta(noises, "test", 400, 400)


@pytest.mark.parametrize("make", FIGURES)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frequency": None}, ("1 of 6 runs", "seed1", "run frequency.py")),
        ({"mass": [1.0] * 6}, ("no measured delta filters", "frequency.py --delta 3200")),
        ({"delta": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}, ("in common", "frequency.py --delta 400 564")),
    ],
)
def test_what_is_missing_is_said_with_the_command(make, change, words):
    *runs, last = make_runs()
    last = replace(last, **change) if "frequency" in change else with_frequency(last, change)
    with pytest.raises(UserError) as error:
        make(by_noise([*runs, last]), None)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("make", FIGURES)
def test_softmax_and_logits_are_not_mixed(make):
    runs = [*make_runs(LOSSES[:1]), make_run(LOSSES[1], values="logits")]
    with pytest.raises(UserError, match=r"softmax.*logits.*run frequency\.py"):
        make(by_noise(runs), None)


def test_logits_are_drawn_and_named_but_have_no_errors():
    noises = by_noise(make_runs(values="logits"))
    text = frequency(noises, None)._suptitle.get_text().replace("\n", " ")
    assert "low-frequency part of the logits on" in text
    with pytest.raises(UserError, match=r"run frequency\.py without --values"):
        errors(noises, None)


@pytest.mark.parametrize(
    ("delta", "words"),
    [
        (333.0, ("--delta 333 was not measured", "50, 100, 200, 400, 564, 800")),
        (100.0, ("--delta 100 filters nothing", "use --delta 200")),
    ],
)
@pytest.mark.parametrize("make", FIGURES[:3])
def test_a_delta_that_cannot_be_shown_is_refused(make, delta, words):
    with pytest.raises(UserError) as error:
        make(by_noise(make_runs()), delta)
    assert all(word in str(error.value) for word in words)


def test_the_order_needs_wrong_labels_and_delta_does_not():
    noises = by_noise(make_runs(noises=("none",), rate=0))
    with pytest.raises(UserError, match="no label of this data set is wrong"):
        order(noises, None)
    assert len(frequency(noises, None).axes) == 2
