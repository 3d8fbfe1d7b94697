"""plot.py: what is drawn from which sources, what is said, what is refused."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import ROOT
from synthetic_runs import LOSSES, make_run, make_runs

import plot
from analysis.history import write_history
from common import run_folder

FROM_TRAINING = ["frontier.png", "accuracy.png", "loss.png"]
FOLDER = Path("figures/cifar10-pair40")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def only(monkeypatch):
    """Leave out all figures but those named: to draw all ten takes seconds."""
    return lambda *names: monkeypatch.setattr(
        plot, "FIGURES", {name: plot.FIGURES[name] for name in names}
    )


def history(runs, path="history.json"):
    write_history(Path(path), runs)
    return path


def write_run(run, folder):
    """The run on disk, with what plot.py reads of it."""
    folder = Path(folder)
    folder.mkdir(parents=True)
    flags = {**run.settings, "epochs": run.epochs, "data": "data/x.npz"}
    config = {"loss": run.loss, "network": run.network, "flags": flags, "data": run.data}
    run_folder.write_config(folder, config)
    for k in range(len(run.history["epoch"])):
        record = {name: float(curve[k]) for name, curve in run.history.items()}
        run_folder.append_history(folder, {**record, "epoch": k + 1})


@pytest.mark.slow
def test_all_figures_are_drawn_and_the_first_line_says_which_to_open(script):
    runs = make_runs(seeds=(0, 1)) + make_runs(seeds=(0, 1), rate=0.2)
    status, out, err = script("plot", history(runs), "--out", "here")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "open: here/frontier.png",
        *(f"here/{name}" for name in plot.FIGURES if name != "frontier.png"),
    ]
    assert {path.name for path in Path("here").iterdir()} == set(plot.FIGURES)


def test_without_measures_the_other_figures_are_drawn(script):
    status, out, err = script("plot", history(make_runs(measured=False)))
    assert status == 0
    assert out == f"open: {FOLDER}/frontier.png\n{FOLDER}/accuracy.png\n{FOLDER}/loss.png\n"
    lines = err.splitlines()
    assert len(lines) == 3 and all("not drawn" in line for line in lines)
    assert "memorization.png: 6 of 6 runs have no memorization.json" in lines[0]
    assert "frequency.png, errors.png, order.png, excess.png" in lines[1]
    assert lines[2].endswith("run frequency.py --eigenvectors")


@pytest.mark.parametrize("flags", [[], ["--runs", "runs/a"], ["runs/a"], ["runs/a/x", "b.json"]])
def test_sources_are_runs_folders_and_files(script, only, flags):
    only("accuracy.png")
    write_run(make_run(epochs=3, measured=False), "runs/a/x")
    history([make_run(LOSSES[1], epochs=3, measured=False)], "b.json")
    status, out, _ = script("plot", *flags)
    assert status == 0 and out.startswith("open: figures/cifar10-pair40") and out.count("\n") == 1


def test_unfinished_runs_are_named_and_left_out(script, monkeypatch):
    drawn = []
    monkeypatch.setattr(plot, "draw_all", lambda noises, *_: drawn.append(noises))
    runs = [make_run(seed=0), make_run(seed=1, trained=7)]
    status, _, err = script("plot", history(runs))
    assert status == 0 and list(drawn[0]["pair flip, 40% wrong"]["cross-entropy"]) == [0]
    assert err.count("\n") == 1 and "cross-entropy-seed1: 7 of 40 epochs, left out" in err


def test_where_no_run_is_finished_all_are_drawn_and_it_is_said(script, only):
    only("accuracy.png")
    status, out, err = script("plot", history(make_runs(trained=7)))
    assert status == 0 and "accuracy.png" in out
    assert err == "plot.py: no run has all its epochs: the figures show unfinished runs\n"


def test_a_data_set_without_wrong_labels(script, only):
    only("frontier.png", "accuracy.png", "memorization.png", "order.png", "eigenvectors.png")
    runs = make_runs(LOSSES[:2], (0,), noises=("none",), rate=0)
    status, out, err = script("plot", history(runs))
    assert status == 0 and out.count("\n") == 1 and out.endswith("/accuracy.png\n")
    assert err.count("\n") == 1 and "no label of this data set is wrong" in err
    assert "frontier.png, memorization.png, order.png, eigenvectors.png" in err


def test_one_kind_of_values_per_figure(script, only):
    only("accuracy.png", "frequency.png")
    runs = [make_run(), make_run(LOSSES[1], values="logits")]
    _, out, err = script("plot", history(runs))
    assert out.count("\n") == 1 and "frequency.png: some runs have" in err and "logits" in err


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        (["cifar10-pair40-seed0", "cifar10-pair40-seed1"], "cifar10-pair40"),
        (["photos"], "photos"),
        (["apples", "pears"], "apples+pears"),
        (["apples", "figs", "pears"], "apples+figs-and-1-more"),
        (["../../etc/x"], "-..-etc-x"),
        ([".."], "figures"),
        (["a\nb"], "a-nb"),
    ],
)
def test_figures_go_to_the_folder_of_their_data(names, folder):
    runs = [make_run(seed=k, data={"name": name}) for k, name in enumerate(names)]
    assert plot.figure_folder(runs) == Path("figures") / folder


@pytest.mark.parametrize("text", [None, "{", "{}", '{"runs": []}'])
def test_a_bad_history_is_refused(refused, text):
    if text is not None:
        Path("bad.json").write_text(text)
    message = refused("plot", "bad.json")
    assert "bad.json" in message and "collect_history.py" in message
    assert not Path("figures").exists()


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ("runs", "train.py")),
        (["--runs", "nowhere"], ("nowhere", "train.py")),
        (["history.json", "--out", "file"], ("--out file", "name a folder")),
        (["history.json", "--delta", "0"], ("--delta",)),
        (["history.json", "--del", "3"], ("--del",)),
    ],
)
def test_refusals(refused, argv, words):
    history(make_runs(measured=False))
    Path("file").write_text("mine")
    message = refused("plot", *argv)
    assert all(word in message for word in words)
    assert Path("file").read_text() == "mine" and not Path("figures").exists()


def test_two_runs_of_one_place_are_refused(refused):
    runs = make_runs(LOSSES[:1], (0,))
    again = replace(runs[0], name="cifar10-pair40-seed0/again", measured_from="another")
    assert "same loss, setting and seed" in refused("plot", history([*runs, again]))


def test_a_file_that_is_no_figure_of_ours_stays(refused, only):
    only("accuracy.png")
    Path("out").mkdir()
    Path("out/accuracy.png").write_text("mine")
    message = refused("plot", history(make_runs(measured=False)), "--out", "out")
    assert "not a figure of plot.py" in message and "--out" in message
    assert Path("out/accuracy.png").read_text() == "mine" and len(list(Path("out").iterdir())) == 1


def test_characters_that_cannot_be_drawn_are_said_once(script, only):
    only("accuracy.png", "loss.png")
    runs = make_runs(measured=False, data={"title": "\U00013000"})
    status, _, err = script("plot", history(runs))
    assert (
        status == 0 and err.count("\n") == 1 and "no font here has the characters \U00013000" in err
    )


def test_the_help_lists_every_figure(script):
    status, out, _ = script("plot", "--help")
    assert status == 0 and all(name in out for name in plot.FIGURES)
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.slow
def test_the_backend_of_jupyter_does_not_matter_and_torch_is_not_imported():
    history(make_runs(LOSSES[:1], (0,), measured=False, epochs=3))
    program = (
        "import sys, plot; status = plot.main(['history.json']); "
        "assert 'torch' not in sys.modules and 'matplotlib.pyplot' not in sys.modules; "
        "sys.exit(status)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for backend in ("module://matplotlib_inline.backend_inline", "foo", "TkAgg"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**environment, "MPLBACKEND": backend},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and "open: " in done.stdout, done.stderr
