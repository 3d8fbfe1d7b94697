"""Figures of training: the frontier, curves by epoch, marks of stopping, noise rates."""

import numpy as np
import pytest
from matplotlib.colors import to_hex
from synthetic_runs import LOSSES, make_run, make_runs

from analysis.history import by_noise
from common.command_line import UserError
from plotting.style import STYLES, series_styles
from plotting.training import accuracy, frontier, loss, memorization, rate

SEEDS = (0, 1, 2)


@pytest.fixture
def noises():
    return by_noise(make_runs(seeds=SEEDS, noises=("pair", "symmetric")))


def lines(axes):
    """loss -> (x, y) of the lines over several points, told by color."""
    names = {color: name for name, (color, _, _) in STYLES.items()}
    found = [line for line in axes.get_lines() if len(line.get_xdata()) > 1]
    return {
        names[to_hex(line.get_color()).upper()]: line.get_data()
        for line in found
        if to_hex(line.get_color()).upper() in names
    }


def marks(axes, loss):
    """(x, y) of the marks of a loss: early (filled) and last (open)."""
    color = STYLES[loss][0]
    found = {}
    for line in axes.get_lines():
        if len(line.get_xdata()) == 1 and line.get_markeredgecolor() == color:
            name = "early" if line.get_markerfacecolor() == color else "last"
            found[name] = (line.get_xdata()[0], line.get_ydata()[0])
    return found


def panel_of(figure, row, column, columns):
    return figure.axes[row * columns + column]


def test_accuracy_lines_are_means_and_bands_extremes(noises):
    figure = accuracy(noises, None)
    for row, series in enumerate(noises.values()):
        for loss_title, runs in series.items():
            curves = (
                [run.history["test_accuracy"] for run in runs.values()],
                [run.gap for run in runs.values()],
            )
            for column, values in enumerate(curves):
                panel = panel_of(figure, row, column, 2)
                x, y = lines(panel)[loss_title]
                np.testing.assert_array_equal(x, range(1, 41))
                np.testing.assert_allclose(y, np.sum(values, axis=0) / len(SEEDS))
                bands = [
                    c.get_paths()[0].get_extents()
                    for c in panel.collections
                    if to_hex(c.get_facecolor()[0]).upper() == STYLES[loss_title][0]
                ]
                extremes = np.min(values), np.max(values)
                assert [(band.y0, band.y1) for band in bands] == [pytest.approx(extremes)]


def test_marks_are_means_of_early_stopping_and_the_last_epoch(noises):
    panel = accuracy(noises, None).axes[0]
    for title, runs in next(iter(noises.values())).items():
        points = []
        for run in runs.values():
            best = 0
            for epoch, value in enumerate(run.history["val_accuracy"]):
                if value > run.history["val_accuracy"][best]:
                    best = epoch
            points.append((best + 1, run.history["test_accuracy"][best]))
        last = np.mean([run.history["test_accuracy"][-1] for run in runs.values()])
        found = marks(panel, title)
        assert found["early"] == pytest.approx(np.mean(points, axis=0))
        assert found["last"] == pytest.approx((40, last))


def first_reaching(run, level):
    """Test accuracy where the gap first reaches the level, by a loop over the epochs."""
    gap, values = run.gap, run.history["test_accuracy"]
    for k in range(len(gap)):
        if gap[k] >= level:
            if k == 0 or gap[k] == level:
                return values[k]
            weight = (level - gap[k - 1]) / (gap[k] - gap[k - 1])
            return (1 - weight) * values[k - 1] + weight * values[k]
    raise AssertionError("never reached")


def test_the_frontier_is_the_mean_at_equal_gap(noises):
    figure = frontier(noises, None)
    for panel, (noise, series) in zip(figure.axes, noises.items(), strict=True):
        assert panel.get_title() == noise
        for title, runs in series.items():
            x, y = lines(panel)[title]
            members = list(runs.values())
            assert x[0] == max(run.gap[0] for run in members)
            assert x[-1] == min(max(run.gap) for run in members)
            for gap, value in list(zip(x, y, strict=True))[::20]:
                expected = np.mean([first_reaching(run, gap) for run in members])
                assert value == pytest.approx(expected)
            found = marks(panel, title)
            last = np.mean([(r.gap[-1], r.history["test_accuracy"][-1]) for r in members], axis=0)
            assert found["last"] == pytest.approx(last)


def test_the_frontier_shows_its_marks_in_every_panel(noises):
    figure = frontier(noises, None)
    low, high = figure.axes[0].get_ylim()
    assert low > 25  # the steep start is cut off
    for panel in figure.axes:
        for title in LOSSES:
            assert all(low < y < high for _, y in marks(panel, title).values())


def test_without_held_out_images_there_is_no_early_mark():
    runs = by_noise(make_runs(held_out=False, measured=False))
    figure = frontier(runs, None)
    assert set(marks(figure.axes[0], "cross-entropy")) == {"last"}
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[-1] == "open: last epoch" and not any("filled" in label for label in labels)


def test_one_epoch_and_one_run_are_drawn():
    runs = by_noise(make_runs(LOSSES[:1], seeds=(0,), epochs=1))
    for make in (frontier, accuracy, loss, memorization):
        figure = make(runs, None)
        assert any(line.get_marker() == "o" for line in figure.axes[0].get_lines())


@pytest.mark.parametrize(
    ("make", "curves"),
    [
        (loss, ("train_cross_entropy", "test_cross_entropy")),
        (memorization, ("sample_memorized", "gap", "auc")),
    ],
)
def test_other_curves_are_means(noises, make, curves):
    figure = make(noises, None)
    for row, series in enumerate(noises.values()):
        for column, name in enumerate(curves):
            found = lines(panel_of(figure, row, column, len(curves)))
            for title, runs in series.items():
                values = [
                    run.gap if name == "gap" else {**run.history, **run.memorization}[name]
                    for run in runs.values()
                ]
                np.testing.assert_allclose(found[title][1], np.mean(values, axis=0))


def test_memorization_names_the_command_that_is_missing():
    runs = [*make_runs(seeds=(0,)), make_run(seed=1, measured=False)]
    with pytest.raises(UserError, match=r"1 of 4 runs .*seed1.*frequency\.py"):
        memorization(by_noise(runs), None)


@pytest.mark.parametrize("make", [frontier, memorization])
def test_without_wrong_labels_there_is_nothing_to_memorize(make):
    with pytest.raises(UserError, match="no label of this data set is wrong"):
        make(by_noise(make_runs(noises=("none",), rate=0)), None)


def make_clean_and_noisy():
    return by_noise(make_runs(seeds=(0,)) + make_runs(seeds=(0,), noises=("none",), rate=0))


def test_a_noise_without_wrong_labels_is_left_out_and_named():
    figure = frontier(make_clean_and_noisy(), None)
    assert len(figure.axes) == 1
    text = " ".join(figure._suptitle.get_text().split())
    assert "Left out, without wrong labels: none, 0% wrong" in text
    figure = accuracy(make_clean_and_noisy(), None)
    assert [text.get_text() for text in figure.axes[3].texts] == ["no value"]
    assert "no label of that data set is wrong" in figure._suptitle.get_text().replace("\n", " ")


@pytest.mark.parametrize("make", [frontier, accuracy, memorization])
def test_the_gap_is_defined_on_the_figure(noises, make):
    text = " ".join(make(noises, None)._suptitle.get_text().split())
    assert "Memorization gap: accuracy on the clean labels among the rightly labeled minus" in text


def test_unfinished_runs_are_said_to_be():
    runs = by_noise(make_runs(trained=7))
    assert accuracy(runs, None)._suptitle.get_text().startswith("UNFINISHED: 6 of 6 runs")


def test_the_rate_figure_shows_each_stop_against_the_rate():
    rates = (0.2, 0.4, 0.6)
    noises = by_noise([run for r in rates for run in make_runs(LOSSES[:2], SEEDS, rate=r)])
    figure = rate(noises, None)
    for panel, stop in zip(figure.axes, ("last", "early", "best"), strict=True):
        for title in LOSSES[:2]:
            x, y = lines(panel)[title]
            np.testing.assert_allclose(x, [20, 40, 60])
            for value, series in zip(y, noises.values(), strict=True):
                epochs = {
                    "early": lambda run: np.argmax(run.history["val_accuracy"]),
                    "last": lambda run: -1,
                    "best": lambda run: np.argmax(run.history["test_accuracy"]),
                }
                found = [
                    run.history["test_accuracy"][epochs[stop](run)]
                    for run in series[title].values()
                ]
                assert value == pytest.approx(np.mean(found))


def test_noises_of_one_rate_have_no_rate_figure_and_others_are_named():
    assert rate(by_noise(make_runs(noises=("pair", "symmetric"))), None) is None
    runs = make_runs(rate=0.2) + make_runs(noises=("pair", "symmetric"))
    figure = rate(by_noise(runs), None)
    assert "Left out, of one rate only: symmetric, 40% wrong" in figure._suptitle.get_text()


def test_settings_are_drawn_side_by_side_under_their_names():
    runs = make_runs(LOSSES[:1], lr=0.02) + make_runs(LOSSES[:1])
    noises = by_noise(runs)
    assert list(series_styles(noises)) == ["cross-entropy, lr 0.02", "cross-entropy, lr 0.05"]
    labels = [text.get_text() for text in accuracy(noises, None).legends[0].get_texts()]
    assert labels[:2] == ["cross-entropy, lr 0.02", "cross-entropy, lr 0.05"]
