"""plot.py: what is drawn from which sources, what is said, what is refused."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from helpers import environment
from made_runs import DISTILLED, LOSSES, make_run, shortened, study, with_deltas, write_run

import plot
from analysis.history import write_history

FOLDER = Path("figures/main-pair40")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def only(monkeypatch):
    """Leave out all figures but those named: to draw all ten takes seconds."""
    every = plot.figures()
    return lambda *names: monkeypatch.setattr(
        plot, "figures", lambda: {f"{name}.png": every[f"{name}.png"] for name in names}
    )


def history(runs, path="history.json"):
    write_history(Path(path), runs)
    return path


@pytest.mark.slow
def test_all_figures_are_drawn_and_the_first_line_says_which_to_open(script):
    runs = study(["pair"], spectrum=True)
    for run in study(["pair"], spectrum=True):
        data = {**run.data, "rate_found": 0.2, "rate_requested": 0.2}
        runs.append(replace(run, data=data, measured_from=f"other {run.name}"))
    for run in runs:
        run.data.setdefault("rate_requested", 0.4)
    status, out, err = script("plot", history(runs), "--out", "here")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "open: here/frontier.png",
        *(f"here/{name}" for name in plot.figures() if name != "frontier.png"),
    ]
    assert {path.name for path in Path("here").iterdir()} == set(plot.figures()) and len(
        plot.figures()
    ) == 10


@pytest.mark.slow
def test_without_measures_the_other_figures_are_drawn(script):
    runs = study(["pair"], frequency=False, memorization=False)
    status, out, err = script("plot", history(runs))
    assert status == 0
    assert {"frontier.png", "accuracy.png", "loss.png"} <= {Path(p).name for p in out.split()}
    lines = err.splitlines()
    assert len(lines) == 3 and all("not drawn" in line for line in lines)
    assert "memorization.png: 9 of 9 runs have no memorization.json" in lines[0]
    assert "frequency.png, errors.png, order.png, excess.png" in lines[1]
    assert lines[2].endswith("run frequency.py --eigenvectors")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--runs", "runs/a"], ["runs/a"], ["runs/a", "b.json"]])
def test_sources_are_runs_folders_and_files(script, only, flags):
    only("accuracy")
    write_run(make_run(), Path("runs/a"))
    history([make_run(DISTILLED)], "b.json")
    status, out, _ = script("plot", *flags)
    assert status == 0 and out == "open: figures/main-pair40/accuracy.png\n"


def test_unfinished_runs_are_named_and_left_out(script, monkeypatch):
    drawn = []
    monkeypatch.setattr(plot, "draw_all", lambda noises, *_: drawn.append(noises))
    runs = [make_run(), make_run(seed=7, epochs=40)]
    status, _, err = script("plot", history(runs))
    assert status == 0 and list(drawn[0]["pair flip, 40% wrong"]["cross-entropy"]) == [6]
    assert err.count("\n") == 1 and "cross-entropy-seed7: 3 of 40 epochs, left out" in err


@pytest.mark.slow
def test_where_no_run_is_finished_all_are_drawn_and_it_is_said(script, only):
    only("accuracy")
    status, out, err = script("plot", history([shortened(run, 2) for run in study(["pair"])]))
    assert status == 0 and "accuracy.png" in out
    assert err == "plot.py: no run has all its epochs: the figures show unfinished runs\n"


def test_what_cannot_be_drawn_is_said_once_for_all_figures(script, only):
    only("frontier", "accuracy", "memorization", "order", "eigenvectors")
    status, out, err = script("plot", history([make_run(gap=None)]))
    assert status == 0 and out.count("\n") == 1 and out.endswith("/accuracy.png\n")
    assert err.count("\n") == 1 and "no label of this data set is wrong" in err
    assert "frontier.png, memorization.png, order.png, eigenvectors.png" in err


def test_one_kind_of_values_per_figure(script, only):
    only("accuracy", "frequency")
    _, out, err = script("plot", history([make_run(), with_deltas(make_run(DISTILLED),
                                                                  values="logits")]))  # fmt: skip
    assert out.count("\n") == 1 and "frequency.png: some runs have" in err and "logits" in err


@pytest.mark.parametrize(
    ("names", "folder"),
    [
        (["cifar10-pair40-seed0", "cifar10-pair40-seed1"], "cifar10-pair40"),
        (["photos"], "photos"),
        (["apples", "pears"], "apples-and-1-more"),
        (["apples", "figs", "pears"], "apples-and-2-more"),
        (["../../etc/x"], "-..-etc-x"),
        ([".."], "figures"),
        (["a\nb"], "a-nb"),
    ],
)
def test_figures_go_to_the_folder_of_their_data(names, folder):
    runs = [make_run(seed=k, data={"name": name}) for k, name in enumerate(names)]
    assert plot.figure_folder(runs) == Path("figures") / folder


def test_a_bad_history_is_refused(refused):
    Path("bad.json").write_text("{}")
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
    history([make_run()])
    Path("file").write_text("mine")
    message = refused("plot", *argv)
    assert all(word in message for word in words)
    assert Path("file").read_text() == "mine" and not Path("figures").exists()


def test_two_runs_of_one_place_are_refused(refused):
    run = make_run()
    again = replace(run, name="main-pair40-seed6/again", measured_from="another")
    assert "same loss, setting and seed" in refused("plot", history([run, again]))


def test_a_file_that_is_no_figure_of_ours_stays(refused, only):
    only("accuracy")
    Path("out").mkdir()
    Path("out/accuracy.png").write_text("mine")
    message = refused("plot", history([make_run()]), "--out", "out")
    assert "not a figure of plot.py" in message and "--out" in message
    assert Path("out/accuracy.png").read_text() == "mine" and len(list(Path("out").iterdir())) == 1


@pytest.mark.slow
def test_characters_that_cannot_be_drawn_are_said_once(script, only):
    only("accuracy", "loss")
    status, _, err = script("plot", history([make_run(data={"title": "\U00013000"})]))
    assert status == 0 and err.count("\n") == 1 and "Glyph 77824" in err


def test_the_help_lists_every_figure(script):
    status, out, _ = script("plot", "--help")
    assert status == 0 and all(name.removesuffix(".png") in out for name in plot.figures())
    assert max(map(len, out.splitlines())) <= 100


@pytest.mark.slow
def test_the_backend_of_jupyter_does_not_matter_and_torch_is_not_imported():
    history([make_run(loss, frequency=False, memorization=False) for loss in LOSSES])
    program = (
        "import sys, plot; status = plot.main(['history.json']); "
        "assert 'torch' not in sys.modules and 'matplotlib.pyplot' not in sys.modules; "
        "sys.exit(status)"
    )
    for backend in ("module://matplotlib_inline.backend_inline", "foo"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment(MPLBACKEND=backend),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0 and "open: " in done.stdout, done.stderr
