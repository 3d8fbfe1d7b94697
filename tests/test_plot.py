"""plot.py: what the lines show, which runs may share a figure, what is said when one cannot be."""

import copy
from pathlib import Path

import numpy as np
import pytest
from conftest import lines

import curves
import plot
import runs
from drawing import STYLES, caption

FROM_HISTORY = {"accuracy.png", "loss.png", "memorization.png"}
FROM_FREQUENCY = {"frequency.png", "convergence.png", "learned_parts.png", "spectrum.png"}


def by_loss(history, key):
    return {
        loss: np.array([r["history"][key] for r in history["runs"] if r["loss"] == loss])
        for loss in STYLES
    }


def test_accuracy_lines_are_means_over_seeds(collected):
    figure = plot.accuracy_figure(collected, curves.by_loss(collected))
    for panel, key in zip(figure.axes, ("train_accuracy", "test_accuracy"), strict=False):
        for loss, values in by_loss(collected, key).items():
            np.testing.assert_allclose(lines(panel)[loss], values.mean(0))
        band = panel.collections[0].get_paths()[0].get_extents()
        values = by_loss(collected, key)["cross-entropy"]
        assert (band.y0, band.y1) == pytest.approx((values.min(), values.max()))
        assert (panel.get_xlabel(), panel.get_ylabel()) == ("epoch", "accuracy (%)")
    accuracy = by_loss(collected, "test_accuracy")
    (difference,) = (line.get_ydata() for line in figure.axes[2].get_lines()[1:])
    expected = (accuracy["self-distillation"] - accuracy["cross-entropy"]).mean(0)
    np.testing.assert_allclose(difference, expected)


def test_loss_figure_keeps_the_objectives_apart(collected):
    figure = plot.history_figure(collected, curves.by_loss(collected), plot.LOSS_PANELS)
    names = ("train_cross_entropy", "test_cross_entropy", "train_objective")
    for panel, name in zip(figure.axes, names, strict=True):
        for loss, values in by_loss(collected, name).items():
            np.testing.assert_allclose(lines(panel)[loss], values.mean(0))
        assert "nats" in panel.get_ylabel()


def test_memorization_figure(collected):
    groups = curves.by_loss(collected)
    figure = plot.history_figure(collected, groups, plot.MEMORIZATION_PANELS)
    names = ("memorized", "train_clean_accuracy")
    for panel, name in zip(figure.axes, names, strict=True):
        for loss, values in by_loss(collected, name).items():
            np.testing.assert_allclose(lines(panel)[loss], values.mean(0))


def test_the_caption_says_what_it_is_of(collected):
    text = caption(collected, curves.by_loss(collected))
    for word in ("random", "pair noise", "25%", "small_cnn", "60 training", "40 test", "0, 1"):
        assert word in text
    collected["runs"] = collected["runs"][:3]
    text = caption(collected, curves.by_loss(collected))
    assert "cross-entropy seeds 0, 1" in text and "self-distillation seeds 0;" in text


def test_one_run_an_unpaired_seed_and_a_run_on_its_way(collected):
    groups = curves.by_loss({**collected, "runs": collected["runs"][:1]})
    plot.accuracy_figure({**collected, "runs": collected["runs"][:1]}, groups)
    shorter = copy.deepcopy(collected)
    shorter["runs"][0]["history"] = {k: v[:2] for k, v in shorter["runs"][0]["history"].items()}
    figure = plot.accuracy_figure(shorter, curves.by_loss(shorter))
    assert len(lines(figure.axes[1])["cross-entropy"]) == 2
    unpaired = [collected["runs"][0], collected["runs"][3]]
    figure = plot.accuracy_figure(
        {**collected, "runs": unpaired}, curves.by_loss({**collected, "runs": unpaired})
    )
    first, second = (np.array(run["history"]["test_accuracy"]) for run in unpaired)
    np.testing.assert_allclose(figure.axes[2].get_lines()[1].get_ydata(), second - first)


def test_both_sources_draw_the_same_figures(collected, script):
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


def test_a_delta_that_was_not_measured_names_the_command(collected, script):
    status, _, err = script("plot", "--delta", 333)
    assert status == 0 and "frequency.py --delta 333" in err and err.count("\n") == 1


def test_without_wrong_labels_there_is_nothing_to_memorize(collected, script):
    for run in collected["runs"]:
        run["history"]["memorized"] = [None] * 3
    runs.write_json(Path("clean.json"), collected)
    status, _, err = script("plot", "clean.json")
    assert status == 0 and "memorization.png" in err and "wrong" in err


def test_runs_of_different_settings_are_not_averaged(collected, refused):
    collected["runs"][1]["settings"]["lr"] = 0.1
    runs.write_json(Path("mixed.json"), collected)
    message = refused("plot", "mixed.json")
    assert "lr" in message and "0.05" in message and "0.1" in message


def test_a_seed_twice_is_refused(collected, refused):
    collected["runs"].append({**collected["runs"][0], "run": "again"})
    runs.write_json(Path("twice.json"), collected)
    assert "again" in refused("plot", "twice.json")


@pytest.mark.parametrize("text", [None, "{", "{}", '{"data": {}, "runs": []}'])
def test_a_bad_history_is_refused(refused, study, text):
    if text is not None:
        Path("bad.json").write_text(text)
    message = refused("plot", "bad.json")
    assert "bad.json" in message and "collect_history.py" in message
    assert not Path("figures").exists()


def three_losses(collected):
    """The runs of two losses, and those of one of them again under another name."""
    for run in [r for r in collected["runs"] if r["loss"] == "self-distillation"]:
        other = {**copy.deepcopy(run), "loss": "self-distillation, previous epoch"}
        other["run"] = "previous-" + run["run"]
        collected["runs"].append(other)
    return collected


def test_three_losses_have_three_lines_and_two_differences(collected, script):
    runs.write_json(Path("three.json"), three_losses(collected))
    status, out, err = script("plot", "three.json")
    assert (status, err, out.count(".png")) == (0, "", 7)
    groups = curves.by_loss(collected)
    assert len(groups) == 3
    figure = plot.accuracy_figure(collected, groups)
    assert len(lines(figure.axes[0])) == 3 and len(figure.axes[2].get_lines()) == 3
    styles = [(line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines()]
    assert len({color for color, _ in styles}) == 3


def test_marks_show_where_early_stopping_ends(collected):
    for k, run in enumerate(collected["runs"]):
        run["history"]["val_accuracy"] = [[1.0, 3.0, 2.0], [1.0, 2.0, 2.5]][k % 2]
    figure = plot.accuracy_figure(collected, curves.by_loss(collected))
    test = figure.axes[1]
    marks = {tuple(c.get_offsets()[0]) for c in test.collections if len(c.get_offsets()) == 1}
    expected = {
        (2.0 + k % 2, run["history"]["test_accuracy"][1 + k % 2])
        for k, run in enumerate(collected["runs"])
    }
    assert expected <= marks and "early stopping" in test.get_title()


def at_rate(collected, rate, shift):
    """A study like `collected` of another noise rate and other accuracies."""
    other = copy.deepcopy(collected)
    other["data"] |= {"rate_found": rate, "name": f"small{rate}"}
    for run in other["runs"]:
        run["history"]["val_accuracy"] = [1.0, 3.0, 2.0]
        run["history"]["test_accuracy"] = [v + shift for v in run["history"]["test_accuracy"]]
    return other


def test_rate_figure(collected, script):
    studies = {rate: at_rate(collected, rate, shift) for rate, shift in ((0.6, 5), (0.2, 9))}
    for rate, study in studies.items():
        runs.write_json(Path(f"{rate}.json"), study)
    status, out, err = script("plot", "0.6.json", "0.2.json", "--out", "rates")
    assert (status, err, out) == (0, "", "rates/rate.png\n")
    assert [path.name for path in Path("rates").iterdir()] == ["rate.png"]
    figure = plot.rate_figure(list(studies.values()))
    for panel, epoch in zip(figure.axes, (lambda a: -1, lambda a: 1, np.argmax), strict=True):
        for loss in STYLES:
            (line,) = [part for part in panel.get_lines() if part.get_label() == loss]
            np.testing.assert_allclose(line.get_xdata(), [20, 60])
            expected = [
                np.mean([a[epoch(a)] for a in by_loss(studies[rate], "test_accuracy")[loss]])
                for rate in (0.2, 0.6)
            ]
            np.testing.assert_allclose(line.get_ydata(), expected)


def test_rates_of_two_noises_are_refused(collected, refused):
    runs.write_json(Path("a.json"), collected)
    other = at_rate(collected, 0.5, 0)
    other["data"]["noise"] = "symmetric"
    runs.write_json(Path("b.json"), other)
    assert "differ in noise" in refused("plot", "a.json", "b.json")
    assert "runs named" in refused("plot", "a.json", "runs")
    assert not Path("figures").exists()
