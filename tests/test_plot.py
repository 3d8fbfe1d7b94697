"""plot.py: what the lines show, which runs may share a figure, what is said when one cannot be."""

import copy
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import plot
import runs

FOUR = ["accuracy.png", "frequency.png", "loss.png", "memorization.png"]


@pytest.fixture
def history(study, script):
    assert script("frequency", "--delta", 100, 400)[0] == 0
    assert script("collect_history")[0] == 0
    yield json.loads(Path("history.json").read_text())
    plt.close("all")


def lines(axes):
    """label -> y values of the lines of a panel that span its epochs."""
    return {line.get_label(): line.get_ydata() for line in axes.get_lines()}


def by_loss(history, key):
    return {
        loss: np.array([r["history"][key] for r in history["runs"] if r["loss"] == loss])
        for loss in plot.STYLES
    }


def test_accuracy_lines_are_means_over_seeds(history):
    figure = plot.accuracy_figure(history, plot.by_loss(history))
    for panel, key in zip(figure.axes, ("train_accuracy", "test_accuracy"), strict=False):
        for loss, values in by_loss(history, key).items():
            np.testing.assert_allclose(lines(panel)[loss], values.mean(0))
        band = panel.collections[0].get_paths()[0].get_extents()
        values = by_loss(history, key)["cross-entropy"]
        assert (band.y0, band.y1) == pytest.approx((values.min(), values.max()))
        assert (panel.get_xlabel(), panel.get_ylabel()) == ("epoch", "accuracy (%)")
    accuracy = by_loss(history, "test_accuracy")
    (difference,) = (line.get_ydata() for line in figure.axes[2].get_lines()[1:])
    expected = (accuracy["self-distillation"] - accuracy["cross-entropy"]).mean(0)
    np.testing.assert_allclose(difference, expected)


def test_loss_figure_keeps_the_objectives_apart(history):
    figure = plot.loss_figure(history, plot.by_loss(history))
    names = ("train_cross_entropy", "test_cross_entropy", "train_objective")
    for panel, name in zip(figure.axes, names, strict=True):
        for loss, values in by_loss(history, name).items():
            np.testing.assert_allclose(lines(panel)[loss], values.mean(0))
        assert "nats" in panel.get_ylabel()


@pytest.mark.parametrize(("delta", "column"), [(100, 0), (400, 1)])
def test_frequency_figure_shows_the_chosen_delta(history, delta, column):
    figure = plot.frequency_figure(history, plot.by_loss(history), delta)
    for panel, measure in zip(figure.axes[:2], ("delta_norm", "energy_share"), strict=True):
        for loss in plot.STYLES:
            values = [
                np.array(run["frequency"]["outputs"][measure])[:, column]
                for run in history["runs"]
                if run["loss"] == loss
            ]
            np.testing.assert_allclose(lines(panel)[loss], np.mean(values, axis=0))
        level = history["runs"][0]["frequency"]["labels"][measure][column]
        assert set(lines(panel)["true labels"]) == {level}
        assert f"= {delta}" in panel.get_title()


def test_memorization_figure(history):
    figure = plot.memorization_figure(history, plot.by_loss(history))
    names = ("memorized", "train_clean_accuracy")
    for panel, name in zip(figure.axes, names, strict=True):
        for loss, values in by_loss(history, name).items():
            np.testing.assert_allclose(lines(panel)[loss], values.mean(0))


def test_the_caption_says_what_it_is_of(history):
    text = plot.caption(history, plot.by_loss(history))
    for word in ("random", "pair noise", "25%", "small_cnn", "60 training", "40 test", "0, 1"):
        assert word in text
    history["runs"] = history["runs"][:3]
    text = plot.caption(history, plot.by_loss(history))
    assert "cross-entropy seeds 0, 1" in text and "self-distillation seeds 0;" in text


def test_one_run_an_unpaired_seed_and_a_run_on_its_way(history):
    groups = plot.by_loss({**history, "runs": history["runs"][:1]})
    plot.accuracy_figure({**history, "runs": history["runs"][:1]}, groups)
    shorter = copy.deepcopy(history)
    shorter["runs"][0]["history"] = {k: v[:2] for k, v in shorter["runs"][0]["history"].items()}
    figure = plot.accuracy_figure(shorter, plot.by_loss(shorter))
    assert len(lines(figure.axes[1])["cross-entropy"]) == 2
    unpaired = [history["runs"][0], history["runs"][3]]
    figure = plot.accuracy_figure(
        {**history, "runs": unpaired}, plot.by_loss({**history, "runs": unpaired})
    )
    first, second = (np.array(run["history"]["test_accuracy"]) for run in unpaired)
    np.testing.assert_allclose(figure.axes[2].get_lines()[1].get_ydata(), second - first)


def test_both_sources_draw_the_same_four_figures(history, script):
    assert script("plot", "history.json", "--out", "a")[0] == 0
    assert script("plot", "--out", "b")[0] == 0
    assert script("plot", "runs/small", "--out", "c")[0] == 0
    assert sorted(path.name for path in Path("a").iterdir()) == FOUR
    for name in FOUR:
        pictures = {Path(folder, name).read_bytes() for folder in "abc"}
        assert len(pictures) == 1 and pictures.pop().startswith(b"\x89PNG")


def test_without_frequency_the_other_figures_are_drawn(study, script):
    status, out, err = script("plot")
    assert status == 0 and err.count("\n") == 1
    assert "frequency.png" in err and "run frequency.py" in err
    assert sorted(path.name for path in Path("figures").iterdir()) == [
        name for name in FOUR if name != "frequency.png"
    ]
    assert out.count("figures/") == 3


def test_a_delta_that_was_not_measured_names_the_command(history, script):
    status, _, err = script("plot", "--delta", 333)
    assert status == 0 and "frequency.py --delta 333" in err and err.count("\n") == 1


def test_without_wrong_labels_there_is_nothing_to_memorize(history, script):
    for run in history["runs"]:
        run["history"]["memorized"] = [None] * 3
    runs.write_json(Path("clean.json"), history)
    status, _, err = script("plot", "clean.json")
    assert status == 0 and "memorization.png not drawn" in err


def test_runs_of_different_settings_are_not_averaged(history, refused):
    history["runs"][1]["settings"]["lr"] = 0.1
    runs.write_json(Path("mixed.json"), history)
    message = refused("plot", "mixed.json")
    assert "lr" in message and "0.05" in message and "0.1" in message


def test_a_seed_twice_is_refused(history, refused):
    history["runs"].append({**history["runs"][0], "run": "again"})
    runs.write_json(Path("twice.json"), history)
    assert "again" in refused("plot", "twice.json")


@pytest.mark.parametrize("text", [None, "{", "{}", '{"data": {}, "runs": []}'])
def test_a_bad_history_is_refused(refused, study, text):
    if text is not None:
        Path("bad.json").write_text(text)
    message = refused("plot", "bad.json")
    assert "bad.json" in message and "collect_history.py" in message
    assert not Path("figures").exists()
