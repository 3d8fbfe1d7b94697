"""plot.py: what the lines show, which runs may share a figure, what is said when they may not."""

import copy
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, panel_lines
from plotting.figures import FIGURES
from plotting.training_figures import (
    accuracy_figure,
    loss_figure,
    memorization_figure,
)

import plot
from analysis.curves import group_by_loss
from common.files import write_json
from plotting.style import caption, plt

STYLES = ("cross-entropy", "self-distillation")
FROM_HISTORY = ["accuracy", "loss", "memorization"]
FROM_FREQUENCY = ["frequency", "convergence", "learned_parts", "spectrum"]
DISTILLED_BEFORE = "self-distillation, previous epoch"
# What a history.json without memorization.json and the parts of the labels has.
OLD_FIGURES = ("accuracy", "loss", "memorization", "frequency", "convergence", "spectrum")


@pytest.fixture
def only(monkeypatch):
    """Leave out all figures but those named: to draw all seven takes seconds."""
    return lambda *names: monkeypatch.setattr(
        "plotting.figures.FIGURES", {name: FIGURES[name] for name in names}
    )


def draw(figure, history):
    return figure(history, group_by_loss(history))


def values_by_loss(history, name):
    """loss -> (seeds, epochs) of a curve."""
    return {
        loss: np.array([run["history"][name] for run in history["runs"] if run["loss"] == loss])
        for loss in STYLES
    }


def with_runs(history, runs):
    return {**history, "runs": list(runs)}


def test_accuracy_lines_are_means_over_seeds(study_history):
    figure = draw(accuracy_figure, study_history)
    for panel, name in zip(figure.axes, ("train_accuracy", "test_accuracy"), strict=False):
        for loss, values in values_by_loss(study_history, name).items():
            np.testing.assert_allclose(panel_lines(panel)[loss], values.mean(0))
        band = panel.collections[0].get_paths()[0].get_extents()
        values = values_by_loss(study_history, name)["cross-entropy"]
        assert (band.y0, band.y1) == pytest.approx((values.min(), values.max()))
        assert (panel.get_xlabel(), panel.get_ylabel()) == ("epoch", "accuracy (%)")
    accuracy = values_by_loss(study_history, "test_accuracy")
    _, difference = figure.axes[2].get_lines()  # zero, and the difference
    expected = (accuracy["self-distillation"] - accuracy["cross-entropy"]).mean(0)
    np.testing.assert_allclose(difference.get_ydata(), expected)


def test_the_loss_figure_keeps_the_objectives_apart(study_history):
    names = ("train_cross_entropy", "test_cross_entropy", "train_objective")
    for panel, name in zip(draw(loss_figure, study_history).axes, names, strict=True):
        for loss, values in values_by_loss(study_history, name).items():
            np.testing.assert_allclose(panel_lines(panel)[loss], values.mean(0))
        assert "nats" in panel.get_ylabel()


def test_the_memorization_figure(study_history):
    for run in study_history["runs"]:
        run["memorization"] = None  # as in a history of before there was such a file
    names = ("memorized", "train_clean_accuracy")
    for panel, name in zip(draw(memorization_figure, study_history).axes, names, strict=True):
        for loss, values in values_by_loss(study_history, name).items():
            np.testing.assert_allclose(panel_lines(panel)[loss], values.mean(0))


def test_the_memorization_figure_shows_gap_and_detection(study_history):
    axes = draw(memorization_figure, study_history).axes
    for panel, name in zip(axes[1:], ("gap", "auc"), strict=True):
        for loss in STYLES:
            runs = [run for run in study_history["runs"] if run["loss"] == loss]
            mean = np.mean([run["memorization"]["curves"][name] for run in runs], axis=0)
            np.testing.assert_allclose(panel_lines(panel)[loss], mean)


def test_the_caption_says_what_is_shown(study_history):
    text = caption(study_history, group_by_loss(study_history))
    for word in ("random", "pair flip, 25% wrong", "small_cnn", "60 training", "40 test", "0, 1"):
        assert word in text
    three = with_runs(study_history, study_history["runs"][:3])
    text = caption(three, group_by_loss(three))
    assert "cross-entropy seeds 0, 1" in text and "self-distillation seeds 0;" in text


def test_one_run_has_a_figure(study_history):
    figure = draw(accuracy_figure, with_runs(study_history, study_history["runs"][:1]))
    assert list(panel_lines(figure.axes[0])) == ["cross-entropy"]
    assert figure.axes[2].texts[0].get_text() == "one loss only"


@pytest.mark.slow
def test_a_run_in_progress_cuts_the_mean_short(study_history):
    first, *others = study_history["runs"]
    shorter = {**first, "history": {name: v[:2] for name, v in first["history"].items()}}
    figure = draw(accuracy_figure, with_runs(study_history, [shorter, *others]))
    assert len(panel_lines(figure.axes[1])["cross-entropy"]) == 2


def test_without_a_common_seed_the_difference_is_of_means(study_history):
    unpaired = [study_history["runs"][0], study_history["runs"][3]]
    figure = draw(accuracy_figure, with_runs(study_history, unpaired))
    first, second = (np.array(run["history"]["test_accuracy"]) for run in unpaired)
    np.testing.assert_allclose(figure.axes[2].get_lines()[1].get_ydata(), second - first)


def test_all_sources_give_the_same_history(study_history):
    sources = ["history.json"], ["runs"], ["runs/small"], sorted(Path("runs/small").glob("dis*"))
    for source in sources:
        assert plot.read_sources([Path(path) for path in source]) == [study_history]


@pytest.mark.parametrize("flags", [[], ["--runs", "runs/small"], ["history.json"]])
def test_the_source_by_default_is_every_run(study_history, monkeypatch, flags):
    drawn = []
    monkeypatch.setattr("plotting.figures.draw_study", lambda *args: drawn.append(args) or {})
    assert plot.main([*flags, "--delta", "100"]) == 0
    assert drawn == [(study_history, 100, Path("figures"))]


@pytest.mark.slow
def test_without_frequencies_the_other_figures_are_drawn(study_outputs, script):
    status, out, err = script("plot")
    lines = [line.removeprefix("plot.py: not drawn: ").split(": ") for line in err.splitlines()]
    reasons = {name: reason for names, *reason in lines for name in names.split(", ")}
    drawn = {path.stem for path in Path("figures").iterdir()}
    assert status == 0 and out.split() == [f"figures/{n}.png" for n in FIGURES if n in drawn]
    assert set(FROM_HISTORY) <= drawn and not {*FROM_FREQUENCY, "filter"} & drawn
    assert {f"{name}.png" for name in {*FIGURES} - drawn} == set(reasons)
    for name in FROM_FREQUENCY:
        assert reasons[f"{name}.png"][-1] == "run frequency.py"
    assert all(reason[-1].startswith("run ") for reason in reasons.values())


@pytest.mark.slow
def test_ratios_of_logits_are_drawn_and_the_rest_says_why_not(study_outputs, script, only):
    only("frequency", "convergence", "learned_parts")
    assert script("frequency", "--values", "logits", "--delta", 100, 400)[0] == 0
    status, out, err = script("plot")
    assert (status, out) == (0, "figures/frequency.png\n")
    assert err.count("\n") == 1 and "convergence.png, learned_parts.png" in err
    assert "without --values" in err


@pytest.mark.slow
def test_a_delta_that_was_not_measured_names_the_command(study_history, script, only):
    only("memorization", "frequency", "learned_parts")
    status, out, err = script("plot", "--delta", 333)
    assert (status, out) == (0, "figures/memorization.png\n")
    assert "not drawn: frequency.png, learned_parts.png" in err and err.count("\n") == 1
    assert "run frequency.py --delta 333" in err and "100, 400" in err


def test_without_wrong_labels_there_is_nothing_to_memorize(study_history, script, only):
    only("memorization")
    for run in study_history["runs"]:
        run["history"]["memorized"] = [None] * 3
        run["memorization"] = None
    write_json(Path("clean.json"), study_history)
    status, _, err = script("plot", "clean.json")
    assert status == 0 and "memorization.png" in err and "wrong" in err


def test_runs_of_different_settings_are_not_averaged(study_history, refused):
    study_history["runs"][1]["settings"]["lr"] = 0.1
    write_json(Path("mixed.json"), study_history)
    message = refused("plot", "mixed.json")
    assert "lr" in message and "0.05" in message and "0.1" in message


def test_a_seed_twice_is_refused(study_history, refused):
    study_history["runs"].append({**study_history["runs"][0], "run": "again"})
    write_json(Path("twice.json"), study_history)
    assert "again" in refused("plot", "twice.json")


@pytest.mark.parametrize("text", [None, "{", "{}", '{"data": {}, "runs": []}'])
def test_a_bad_history_is_refused(refused, workplace, text):
    if text is not None:
        Path("bad.json").write_text(text)
    message = refused("plot", "bad.json")
    assert "bad.json" in message and "collect_history.py" in message
    assert not Path("figures").exists()


@pytest.fixture
def three_losses(study_history):
    """`study_history` with the runs of self-distillation again, as those of another loss."""
    for run in study_history["runs"][2:]:
        again = {"loss": DISTILLED_BEFORE, "run": f"previous-{run['run']}"}
        study_history["runs"].append({**copy.deepcopy(run), **again})
    return study_history


@pytest.mark.slow
def test_three_losses_are_drawn(three_losses, script):
    write_json(Path("three.json"), three_losses)
    status, out, err = script("plot", "three.json")
    assert status == 0 and "run spectrum.py" in err and err.count("\n") == 1
    assert out.split() == [
        f"figures/{name}.png"
        for name in FIGURES
        if name not in ("filter", "kernels", "equivalent_epochs")
    ]


def test_three_losses_have_three_lines_and_two_differences(three_losses):
    figure = draw(accuracy_figure, three_losses)
    assert list(panel_lines(figure.axes[0])) == [*STYLES, DISTILLED_BEFORE]
    assert len(figure.axes[2].get_lines()) == 3  # zero, and two differences
    colors = {line.get_color() for line in figure.axes[0].get_lines()}
    styles = {str(line._unscaled_dash_pattern) for line in figure.axes[0].get_lines()}
    assert len(colors) == len(styles) == 3


def test_marks_show_where_early_stopping_ends(study_history):
    for k, run in enumerate(study_history["runs"]):
        run["history"]["val_accuracy"] = [[1.0, 3.0, 2.0], [1.0, 2.0, 2.5]][k % 2]
    test = draw(accuracy_figure, study_history).axes[1]
    marks = {tuple(c.get_offsets()[0]) for c in test.collections if len(c.get_offsets()) == 1}
    expected = {
        (2.0 + k % 2, run["history"]["test_accuracy"][1 + k % 2])
        for k, run in enumerate(study_history["runs"])
    }
    assert expected <= marks and "early stopping" in test.get_title()


@pytest.fixture
def old_history():
    """A history.json that an older version wrote: two losses, two seeds, four epochs and deltas."""
    yield ROOT / "tests/data/old_history.json"
    plt.close("all")


def test_every_figure_can_be_made_of_an_old_history(old_history):
    (history,) = plot.read_sources([old_history])
    groups = group_by_loss(history)
    for name in OLD_FIGURES:
        assert FIGURES[name](history, groups, None).axes


@pytest.mark.slow
def test_an_old_history_is_drawn(old_history, script, tmp_path):
    status, out, err = script("plot", old_history, "--out", tmp_path)
    assert status == 0 and "learned_parts.png" in err
    assert {str(tmp_path / f"{name}.png") for name in OLD_FIGURES} <= set(out.split())
