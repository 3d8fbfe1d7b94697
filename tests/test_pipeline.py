"""The scripts in order, as a user runs them; their modules and their help."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import PROGRAMS, ROOT, SCRIPTS, run_python

FROM_HISTORY = {"accuracy.png", "loss.png", "memorization.png"}
FROM_FREQUENCY = {"frequency.png", "convergence.png", "learned_parts.png", "spectrum.png"}
SMALL = ["--depth=8", "--width=4", "--epochs=2", "--batch-size=20", "--lr=0.1", "--device=cpu"]


def run(name, *flags):
    """Run a script from the working folder in a process of its own; it must succeed."""
    done = run_python(ROOT / f"{name}.py", *flags)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def orders(tmp_path_factory):
    """Both orders of the scripts (frequency first, collect first) over equal runs, two folders."""
    folders = {}
    trained = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained)
        run("generate", "--dataset", "shapes", "--train-size", 60, "--test-size", 40)
        for dis in (0, 1):
            run("train", f"--dis={dis}", "--data=data/shapes-pair40.npz", *SMALL)
        for order in ("frequency first", "collect first"):
            folder = folders[order] = trained.with_name(order.replace(" ", "-"))
            shutil.copytree(trained, folder)
            patch.chdir(folder)
            if order == "frequency first":
                run("frequency")
                run("plot")
                run("collect_history")
            else:
                run("collect_history")
                first = run("plot", "runs/shapes-pair40/history.json")
                assert "run frequency.py" in first.stderr and "Traceback" not in first.stderr
                assert {path.name for path in Path("figures").iterdir()} == FROM_HISTORY
                run("frequency")
                run("collect_history")
                run("plot", "runs/shapes-pair40/history.json")
    return folders


def history_without_times(folder):
    text = (folder / "runs/shapes-pair40/history.json").read_text()
    return re.sub(r'"(seconds|images_per_second)": \[[^]]*\]', "", text)


@pytest.mark.slow
def test_both_orders_make_the_same_history_and_figures(orders):
    first, second = orders.values()
    assert history_without_times(first) == history_without_times(second)
    names = {path.name for path in (first / "figures").iterdir()}
    assert names >= FROM_HISTORY | FROM_FREQUENCY
    for name in names:
        pictures = [(folder / "figures" / name).read_bytes() for folder in (first, second)]
        assert pictures[0] == pictures[1], name


@pytest.mark.slow
def test_two_equal_runs_are_equal_bit_for_bit(orders):
    first, second = orders.values()
    paths = list(first.glob("runs/*/*/logits.npy"))
    assert len(paths) == 2
    for logits in paths:
        other = second / logits.relative_to(first)
        np.testing.assert_array_equal(np.load(logits), np.load(other))


PACKAGES = sorted(path.parent for path in ROOT.glob("*/__init__.py"))
MODULES = [f"{path.name}.{p.stem}" for path in PACKAGES for p in sorted(path.glob("[!_]*.py"))]


@pytest.mark.parametrize(
    "names",
    [pytest.param(SCRIPTS, id="scripts"), pytest.param(MODULES, id="all", marks=pytest.mark.slow)],
)
def test_importing_does_nothing(tmp_path, names):
    assert len(names) >= 7
    done = run_python("-B", PROGRAMS / "import_modules.py", *names, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_tells_every_flag_and_needs_no_torch(name):
    forbidden = "torch,torchvision,scipy,matplotlib"
    done = run_python(PROGRAMS / "forbid_imports.py", forbidden, f"{name}.py", "--help")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: ")
    # An entry starts after two spaces; its text follows after more, or on the next line.
    entries = [
        re.split(r"\s{2,}", entry, maxsplit=1)
        for entry in re.findall(r"^  (-.*(?:\n {10,}.*)*)", done.stdout, re.MULTILINE)
    ]
    assert all(len(entry) == 2 and entry[1] for entry in entries)
    described = {flag for names, _ in entries for flag in re.findall(r"--[a-z][a-z-]*", names)}
    added = r'\b(?:add|add_argument)\(\s*(?:\*\()?"(--[a-z][a-z-]*)"'
    flags = set(re.findall(added, (ROOT / f"{name}.py").read_text()))
    assert flags and flags <= described


@pytest.mark.slow
def test_collecting_needs_no_torch(study_history):
    Path("history.json").unlink()
    collect = "collect_history.py", "--out", "history.json"
    done = run_python(PROGRAMS / "forbid_imports.py", "torch,matplotlib", *collect)
    assert (done.returncode, done.stderr) == (0, "") and Path("history.json").exists()
    done = run_python(PROGRAMS / "forbid_imports.py", "numpy", *collect)
    assert done.returncode != 0 and "numpy is forbidden" in done.stderr


@pytest.mark.slow
def test_plotting_needs_no_torch(study_history):
    done = run_python(PROGRAMS / "forbid_imports.py", "torch", "plot.py", "history.json")
    assert done.returncode == 0 and "figures/accuracy.png" in done.stdout


def test_make_uses_another_python_as_it_is():
    done = subprocess.run(
        ["make", "--dry-run", "test", "PYTHON=python3"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "pip" not in done.stdout and "python3 -m pytest" in done.stdout
