"""plotting/rate_figure.py: accuracy against the noise rate, over several studies."""

import copy
from pathlib import Path

import numpy as np
from helpers import panel_lines

from common.files import write_json
from plotting.rate_figure import rate_figure

STYLES = ("cross-entropy", "self-distillation")


def at_rate(history, rate, shift):
    """A study like `history` at another noise rate, with other accuracies."""
    other = copy.deepcopy(history)
    other["data"] |= {"rate_found": rate, "name": f"small{rate}"}
    for run in other["runs"]:
        run["history"]["val_accuracy"] = [1.0, 3.0, 2.0]
        run["history"]["test_accuracy"] = [v + shift for v in run["history"]["test_accuracy"]]
    return other


def mean_accuracy(history, loss, epoch):
    """Of the runs of a loss, each at the epoch that `epoch` says for its accuracies."""
    curves = [run["history"]["test_accuracy"] for run in history["runs"] if run["loss"] == loss]
    return np.mean([curve[epoch(curve)] for curve in curves])


def test_the_lines_are_means_at_each_stop(study_history, script):
    studies = {rate: at_rate(study_history, rate, shift) for rate, shift in ((0.6, 5), (0.2, 9))}
    for rate, history in studies.items():
        write_json(Path(f"{rate}.json"), history)
    status, out, err = script("plot", "0.6.json", "0.2.json", "--out", "rates")
    assert (status, err, out) == (0, "", "rates/rate.png\n")
    assert [path.name for path in Path("rates").iterdir()] == ["rate.png"]
    stops = (lambda curve: -1, lambda curve: 1, np.argmax)
    for panel, epoch in zip(rate_figure(list(studies.values())).axes, stops, strict=True):
        for loss in STYLES:
            (line,) = [line for line in panel.get_lines() if line.get_label() == loss]
            np.testing.assert_allclose(line.get_xdata(), [20, 60])
            expected = [mean_accuracy(studies[rate], loss, epoch) for rate in (0.2, 0.6)]
            np.testing.assert_allclose(line.get_ydata(), expected)


def test_without_validation_images_early_stopping_has_no_line(study_history):
    studies = [at_rate(study_history, rate, 0) for rate in (0.2, 0.4)]
    for run in studies[0]["runs"]:
        run["history"]["val_accuracy"] = [None] * 3
    last, early, oracle = rate_figure(studies).axes
    assert [len(panel_lines(panel)["cross-entropy"]) for panel in (last, early, oracle)] == [
        2,
        1,
        2,
    ]


def test_studies_of_two_data_sets_are_refused(study_history, refused):
    write_json(Path("a.json"), study_history)
    other = at_rate(study_history, 0.5, 0)
    other["data"]["title"] = "another"
    write_json(Path("b.json"), other)
    assert "differ in title" in refused("plot", "a.json", "b.json")
    assert not Path("figures").exists()


def test_files_and_runs_do_not_mix(study_history, refused):
    assert "runs named" in refused("plot", "history.json", "runs")
    assert not Path("figures").exists()
