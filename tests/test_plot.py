"""plot.py: what the lines show, which runs may share a figure, what is said when one cannot be."""

import copy
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import collect_history
import plot
import runs

FROM_HISTORY = {"accuracy.png", "loss.png", "memorization.png"}
FROM_FREQUENCY = {"frequency.png", "convergence.png", "learned_parts.png", "spectrum.png"}


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
    figure = plot.accuracy_figure(history, collect_history.by_loss(history))
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
    figure = plot.history_figure(history, collect_history.by_loss(history), plot.LOSS_PANELS)
    names = ("train_cross_entropy", "test_cross_entropy", "train_objective")
    for panel, name in zip(figure.axes, names, strict=True):
        for loss, values in by_loss(history, name).items():
            np.testing.assert_allclose(lines(panel)[loss], values.mean(0))
        assert "nats" in panel.get_ylabel()


@pytest.mark.parametrize(("delta", "column"), [(100, 0), (400, 1)])
def test_frequency_figure_shows_the_chosen_delta(history, delta, column):
    figure = plot.frequency_figure(history, collect_history.by_loss(history), delta)
    for panel, measure in zip(figure.axes[:2], ("delta_norm", "energy_share"), strict=True):
        for loss in plot.STYLES:
            values = [
                np.array(run["frequency"]["test"]["outputs"][measure])[:, column]
                for run in history["runs"]
                if run["loss"] == loss
            ]
            np.testing.assert_allclose(lines(panel)[loss], np.mean(values, axis=0))
        test = history["runs"][0]["frequency"]["test"]
        assert set(lines(panel)["true labels"]) == {test["labels"]["true"][measure][column]}
        assert set(lines(panel)["shuffled"]) == {test["shuffled"][measure][column]}
        assert f"= {delta}" in panel.get_title()


def test_memorization_figure(history):
    groups = collect_history.by_loss(history)
    figure = plot.history_figure(history, groups, plot.MEMORIZATION_PANELS)
    names = ("memorized", "train_clean_accuracy")
    for panel, name in zip(figure.axes, names, strict=True):
        for loss, values in by_loss(history, name).items():
            np.testing.assert_allclose(lines(panel)[loss], values.mean(0))


def of_loss(history, loss, part, measure):
    """(seeds, epochs, deltas) of a measure."""
    found = [run["frequency"][part]["outputs"][measure] for run in history["runs"]]
    return np.array([v for v, r in zip(found, history["runs"], strict=True) if r["loss"] == loss])


def test_convergence_figure(history):
    figure = plot.convergence_figure(history, collect_history.by_loss(history))
    panels = np.array(figure.axes).reshape(2, -1)
    assert panels.shape == (2, 2)  # of two deltas there are no three
    for row, measure in zip(panels, ("e_low", "e_high"), strict=True):
        for column, panel in enumerate(row):
            for loss in plot.STYLES:
                values = of_loss(history, loss, "test", measure)[..., column].mean(0)
                np.testing.assert_allclose(lines(panel)[loss], values)
            assert f"= {(100, 400)[column]}" in panel.get_title()


def test_learned_parts_figure(history):
    groups = collect_history.by_loss(history)
    figure = plot.learned_parts_figure(history, groups, None)
    for panel, loss in zip(figure.axes, plot.STYLES, strict=True):
        assert loss in panel.get_title() and "= 400" in panel.get_title()
        for part, (label, _) in plot.PART_STYLES.items():
            values = of_loss(history, loss, "probe", f"learned_{part}")[..., 1].mean(0)
            np.testing.assert_allclose(lines(panel)[label], values)
    shown = plot.learned_parts_figure(history, groups, 100).axes[0]
    values = of_loss(history, "cross-entropy", "probe", "learned_noise_high")[..., 0].mean(0)
    np.testing.assert_allclose(lines(shown)["noise, high"], values)


def test_spectrum_figure(history):
    figure = plot.spectrum_figure(history, collect_history.by_loss(history))
    maps = [of_loss(history, loss, "test", "excess").mean(0).T for loss in plot.STYLES]
    images = [panel.collections[0] for panel in figure.axes[:3]]
    for image, values in zip(images, [*maps, maps[1] - maps[0]], strict=True):
        np.testing.assert_allclose(image.get_array(), values)
    assert images[2].norm.vmin == -images[2].norm.vmax
    assert images[0].norm.vmax == images[1].norm.vmax


def test_the_caption_says_what_it_is_of(history):
    text = plot.caption(history, collect_history.by_loss(history))
    for word in ("random", "pair noise", "25%", "small_cnn", "60 training", "40 test", "0, 1"):
        assert word in text
    history["runs"] = history["runs"][:3]
    text = plot.caption(history, collect_history.by_loss(history))
    assert "cross-entropy seeds 0, 1" in text and "self-distillation seeds 0;" in text


def test_one_run_an_unpaired_seed_and_a_run_on_its_way(history):
    groups = collect_history.by_loss({**history, "runs": history["runs"][:1]})
    plot.accuracy_figure({**history, "runs": history["runs"][:1]}, groups)
    shorter = copy.deepcopy(history)
    shorter["runs"][0]["history"] = {k: v[:2] for k, v in shorter["runs"][0]["history"].items()}
    figure = plot.accuracy_figure(shorter, collect_history.by_loss(shorter))
    assert len(lines(figure.axes[1])["cross-entropy"]) == 2
    unpaired = [history["runs"][0], history["runs"][3]]
    figure = plot.accuracy_figure(
        {**history, "runs": unpaired}, collect_history.by_loss({**history, "runs": unpaired})
    )
    first, second = (np.array(run["history"]["test_accuracy"]) for run in unpaired)
    np.testing.assert_allclose(figure.axes[2].get_lines()[1].get_ydata(), second - first)


def test_both_sources_draw_the_same_figures(history, script):
    assert script("plot", "history.json", "--out", "a")[0] == 0
    assert script("plot", "--out", "b")[0] == 0
    assert script("plot", "runs/small", "--out", "c")[0] == 0
    assert {path.name for path in Path("a").iterdir()} == FROM_HISTORY | FROM_FREQUENCY
    for name in FROM_HISTORY | FROM_FREQUENCY:
        pictures = {Path(folder, name).read_bytes() for folder in "abc"}
        assert len(pictures) == 1 and pictures.pop().startswith(b"\x89PNG")


def test_without_frequency_the_other_figures_are_drawn(study, script):
    status, out, err = script("plot")
    assert status == 0 and err.count("\n") == 1
    assert all(name in err for name in FROM_FREQUENCY) and "run frequency.py" in err
    assert {path.name for path in Path("figures").iterdir()} == FROM_HISTORY
    assert out.count("figures/") == 3


def test_ratios_of_logits_are_drawn_and_the_rest_says_why_not(study, script):
    assert script("frequency", "--values", "logits", "--delta", 100, 400)[0] == 0
    status, out, err = script("plot")
    assert status == 0 and "figures/frequency.png" in out and "figures/spectrum.png" in out
    assert err.count("\n") == 1 and "convergence.png, learned_parts.png" in err
    assert "without --values" in err


def test_a_delta_that_was_not_measured_names_the_command(history, script):
    status, _, err = script("plot", "--delta", 333)
    assert status == 0 and "frequency.py --delta 333" in err and err.count("\n") == 1


def test_without_wrong_labels_there_is_nothing_to_memorize(history, script):
    for run in history["runs"]:
        run["history"]["memorized"] = [None] * 3
    runs.write_json(Path("clean.json"), history)
    status, _, err = script("plot", "clean.json")
    assert status == 0 and "memorization.png" in err and "wrong" in err


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
