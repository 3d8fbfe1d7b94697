"""plot.py: what is drawn from which sources, what is said, what is refused."""

from pathlib import Path

import pytest
from helpers import run_python
from made_runs import DISTILLED, make_run, shortened, study, write_run

import plot
from analysis.history import write_history

NAMES = [f"{name}.png" for names in plot.FIGURES.values() for name in names]


pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture
def only(monkeypatch):
    """Leave out all figures but those named: to draw all takes seconds."""
    every = plot.FIGURES.items()
    return lambda *names: monkeypatch.setattr(
        plot, "FIGURES", {module: [n for n in own if n in names] for module, own in every}
    )


def history(runs, path="history.json"):
    write_history(Path(path), runs)
    return path


PROGRAM = """
import sys, collect_history, plot
assert collect_history.main(["--out", "history.json"]) == 0
assert plot.main(["history.json", "--out", "here"]) == 0
assert not {"torch", "matplotlib.pyplot"} & set(sys.modules)
"""


@pytest.mark.slow
def test_collected_runs_are_drawn_without_torch_whatever_backend_jupyter_asks_for(monkeypatch):
    for run in study(["pair"], seeds=[6], spectrum=True):
        write_run(run)
    monkeypatch.setenv("MPLBACKEND", "module://not_installed.backend_inline")
    done = run_python("-c", PROGRAM)
    assert (done.returncode, done.stderr) == (0, "")
    # The first line says which to open.
    lines = [f"here/{name}" for name in NAMES]
    assert done.stdout.endswith("\n".join([f"open: {lines[0]}", *lines[1:], ""]))
    assert lines[0] == "here/frontier.png" and len(lines) == 8
    assert {str(path) for path in Path("here").iterdir()} == set(lines)


@pytest.mark.slow
def test_without_measures_the_other_figures_are_drawn(script):
    runs = study(["pair"], seeds=[6], frequency=False, memorization=False)
    Path("figures/main-pair40").mkdir(parents=True)
    Path("figures/main-pair40/order.png").touch()
    status, out, err = script("plot", history(runs))
    assert status == 0
    assert {Path(p).name for p in out.split()[1:]} == {"frontier.png", "accuracy.png", "loss.png"}
    lines = err.splitlines()
    stale = lines.pop(2)
    assert stale.endswith("perhaps of other runs, stay in figures/main-pair40: order.png")
    assert len(lines) == 3 and all("not drawn" in line for line in lines)
    assert "memorization.png: 3 of 3 runs have no memorization.json" in lines[0]
    assert "frequency.png, errors.png, order.png: 3 of 3" in lines[1]
    assert lines[2].endswith("run frequency.py --eigenvectors")


@pytest.mark.parametrize(
    ("flags", "runs"),
    [([], 1), (["--runs", "runs/a"], 1), (["runs/a"], 1), (["runs/a", "b.json"], 2)],
)
def test_sources_are_runs_folders_and_files(script, monkeypatch, flags, runs):
    drawn = []
    monkeypatch.setattr(plot, "draw_all", lambda *args: drawn.append(args))
    write_run(make_run(), Path("runs/a"))
    history([make_run(DISTILLED)], "b.json")
    assert script("plot", *flags)[0] == 0
    ((noises, _, folder),) = drawn
    assert folder == Path("figures/main-pair40")
    assert [len(series) for series in noises.values()] == [runs]


EGYPTIAN = "\U00013000"


@pytest.mark.parametrize(
    ("names", "runs", "words"),
    [
        (
            ["accuracy"],
            [make_run(), make_run(seed=7, epochs=40)],
            ["cross-entropy-seed7: 3 of 40 epochs, left out"],
        ),
        (["accuracy"], [make_run(data={"source": EGYPTIAN})], ["Glyph 77824"]),
        (["accuracy"], [shortened(make_run(), 2)], ["no run has all its epochs"]),
    ],
)
def test_what_is_wrong_with_figures_is_said_in_one_line(script, only, names, runs, words):
    only(*names)
    status, out, err = script("plot", history(runs))
    assert status == 0 and out == "open: figures/main-pair40/accuracy.png\n"
    assert err.count("\n") == 1 and all(word in err for word in words)


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


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], ("runs", "train.py")),
        (["--runs", "nowhere"], ("nowhere", "train.py")),
        (["bad.json"], ("bad.json", "collect_history.py")),
        (["history.json", "--out", "file"], ("--out file", "name a folder")),
        (["history.json", "--out", "mine"], ("not a figure of plot.py", "--out")),
        (["history.json", "--delta", "0"], ("--delta",)),
    ],
)
def test_refusals(refused, only, argv, words):
    only("accuracy")
    history([make_run()])
    Path("bad.json").write_text("{}")
    Path("mine").mkdir()
    own = [Path("file"), Path("mine/accuracy.png")]
    for path in own:
        path.write_text("mine")
    message = refused("plot", *argv)
    assert all(word in message for word in words)
    assert all(path.read_text() == "mine" for path in own)
    assert not Path("figures").exists() and len(list(Path("mine").iterdir())) == 1


def test_the_help_lists_every_figure(script):
    status, out, _ = script("plot", "--help")
    assert status == 0 and all(name.removesuffix(".png") in out for name in NAMES)
    assert max(map(len, out.splitlines())) <= 100
