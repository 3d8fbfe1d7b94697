"""The scripts in order, as a user runs them, and what README and docs promise of them."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, environment

TEXTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "results/README.md"]
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py") if path.stem != "losses")
FROM_HISTORY = {"accuracy.png", "loss.png", "memorization.png"}
FROM_FREQUENCY = {"frequency.png", "convergence.png", "learned_parts.png", "spectrum.png"}
SMALL = ["--depth=8", "--width=4", "--epochs=2", "--batch-size=20", "--lr=0.1", "--device=cpu"]


def run(name, *flags):
    """Run a script from the working folder in a process of its own; it must succeed."""
    command = [sys.executable, str(ROOT / f"{name}.py"), *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def orders(tmp_path_factory):
    """Both orders of the scripts (frequency first, collect first) over equal runs, two folders."""
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        for order in ("frequency first", "collect first"):
            folder = folders[order] = tmp_path_factory.mktemp(order.replace(" ", "-"))
            patch.chdir(folder)
            run("generate", "--dataset", "shapes", "--train-size", 60, "--test-size", 40)
            for dis in (0, 1):
                run("train", f"--dis={dis}", "--data=data/shapes-pair40.npz", *SMALL)
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


def test_importing_a_script_does_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", f"import {', '.join(SCRIPTS)}"],
        cwd=tmp_path,
        env=environment() | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_needs_no_torch(name):
    code = f"import sys, {name}\ntry:\n    {name}.parse_args(['--help'])\nexcept SystemExit:\n    "
    code += "print(sorted({'torch', 'scipy', 'matplotlib'} & set(sys.modules)))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]" and "usage:" in done.stdout


def documented_commands():
    """Every `python <script> ...` line of the texts: (text, script, flags)."""
    pattern = r"^\s*(?:\$ )?python (\w+)\.py\b(.*?)(?:\s{2,}.*|#.*)?$"
    for path in TEXTS:
        text = path.read_text("utf-8").replace("\\\n", " ")
        for name, flags in re.findall(pattern, text, re.MULTILINE):
            yield path.name, name, flags


def test_every_documented_command_parses(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("labels.json", "labels.npy", "labels.csv", "CIFAR-10_human.pt"):
        Path(name).touch()  # files that the commands name
    commands = list(documented_commands())
    assert {"generate", "train", "study", "plot"} <= {name for _, name, _ in commands}
    for text, name, flags in commands:
        try:
            importlib.import_module(name).parse_args(shlex.split(re.split(r"[;&|>]", flags)[0]))
        except SystemExit as stop:
            pytest.fail(f"{text}: python {name}.py{flags}: exit {stop.code}")


def test_every_documented_flag_exists(capsys):
    known = {"--help", "--list"}
    for name in SCRIPTS:
        with pytest.raises(SystemExit):
            importlib.import_module(name).parse_args(["--help"])
        known |= set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out))
    scripts = "|".join(SCRIPTS)
    for path in TEXTS:
        text = path.read_text("utf-8")
        for flags in re.findall(rf"`(?:python )?(?:{scripts})\.py ([^`\n]*)`", text):
            assert set(re.findall(r"--[a-z][a-z-]*", flags)) <= known, f"{path.name}: {flags}"


def test_every_file_that_the_texts_link_exists():
    for path in TEXTS:
        links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text("utf-8"))
        for link in links:
            if "://" not in link:
                assert (path.parent / link).exists(), f"{path.name}: {link}"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text("utf-8").split()) <= 1100


def test_make_uses_another_python_as_it_is():
    done = subprocess.run(
        ["make", "--dry-run", "test", "PYTHON=python3"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and "pip" not in done.stdout and "python3 -m pytest" in done.stdout
