"""The scripts in order, as a user runs them, and what the README promises of them."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
SCRIPTS = ["generate.py", "train.py", "frequency.py", "collect_history.py", "plot.py"]
FROM_HISTORY = {"accuracy.png", "loss.png", "memorization.png"}
FIGURES = FROM_HISTORY | {"frequency.png", "convergence.png", "learned_parts.png", "spectrum.png"}
SMALL = ["--depth=8", "--width=4", "--epochs=2", "--batch-size=20", "--lr=0.1", "--device=cpu"]


def run(name, *flags):
    """Run a script from the working folder in a process of its own; it must succeed."""
    command = [sys.executable, str(ROOT / name), *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def orders(tmp_path_factory):
    """Both orders of the scripts (DESIGN section 1) over the same two runs, in two folders."""
    folders = {}
    with pytest.MonkeyPatch.context() as patch:
        for order in ("frequency first", "collect first"):
            folder = folders[order] = tmp_path_factory.mktemp(order.replace(" ", "-"))
            patch.chdir(folder)
            flags = ["--dataset", "shapes", "--train-size", 60, "--test-size", 40]
            run("generate.py", *flags)
            for dis in (0, 1):
                run("train.py", f"--dis={dis}", "--data=data/shapes-pair40.npz", *SMALL)
            if order == "frequency first":
                run("frequency.py")
                run("plot.py")
                run("collect_history.py")
            else:
                run("collect_history.py")
                first = run("plot.py", "history.json")
                assert "run frequency.py" in first.stderr and "Traceback" not in first.stderr
                assert {p.name for p in Path("figures").iterdir()} == FROM_HISTORY
                run("frequency.py")
                run("collect_history.py")
                run("plot.py", "history.json")
    return folders


def without_times(path):
    times = r'"(seconds|images_per_second)": \[[^]]*\]'
    return re.sub(times, "", path.read_text())


def test_both_orders_make_the_same_history_and_figures(orders):
    first, second = orders.values()
    assert without_times(first / "history.json") == without_times(second / "history.json")
    for folder in (first, second):
        assert {p.name for p in (folder / "figures").iterdir()} == FIGURES
    for name in FIGURES:
        pictures = [(folder / "figures" / name).read_bytes() for folder in (first, second)]
        assert pictures[0] == pictures[1], name


def test_two_equal_runs_are_equal_bit_for_bit(orders):
    first, second = orders.values()
    for logits in first.glob("runs/*/*/logits.npy"):
        other = second / logits.relative_to(first)
        np.testing.assert_array_equal(np.load(logits), np.load(other))


def test_importing_a_script_does_nothing(tmp_path):
    code = "import generate, train, frequency, collect_history, plot"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_tells_every_flag(name):
    done = run(name, "--help")
    source = (ROOT / name).read_text()
    for flag in re.findall(r'add\("(--[a-z-]+)"', source):
        assert flag in done.stdout


def commands():
    """Every `python <script> ...` line of the README, with its flags."""
    found = re.findall(r"^\s*(?:\$ )?python (\w+\.py)(.*?)(?:#.*)?$", README, re.MULTILINE)
    return [(name, shlex.split(flags)) for name, flags in found]


def test_every_command_of_the_readme_parses(monkeypatch):
    assert {name for name, _ in commands()} == set(SCRIPTS)
    for name, flags in commands():
        module = __import__(name.removesuffix(".py"))
        module.parse_args(flags)


def test_every_flag_named_in_the_readme_exists():
    flags = {f for name in SCRIPTS for f in re.findall(r'"(--[a-z-]+)"', (ROOT / name).read_text())}
    named = set(re.findall(r"`[^`\n]*?(--[a-z][a-z-]+)", README))
    assert named and named <= flags | {"--no-augment", "--no-amp", "--help"}


def test_every_file_named_in_the_readme_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        if "://" not in link:
            assert (ROOT / link).exists(), link


def make(*words):
    done = subprocess.run(
        ["make", "--no-print-directory", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_makefiles_map_has_every_step_in_order(tmp_path):
    losses = "dis0 dis1 dis1-previous-epoch dis1-soft-weight0.2 dis1-uniform-weight0.1"
    words = ["NAME=none-here", "SEEDS=0 1", f"LOSSES={losses}", "NOISES=pair symmetric"]
    words += ["RATES=0.2 0.4", "PYTHON=python", "NETWORK=small_cnn", "TRAIN=--model small_cnn"]
    plan = make("--dry-run", "study", *words).replace("\\\n", "")
    steps = re.findall(r"python (\w+)\.py", plan)
    assert steps.count("train") == 2 * 5 * 4 and steps.count("frequency") == 4
    assert steps.count("generate") == steps.count("collect_history") == 4
    assert steps.count("plot") == 4 + 2  # and accuracy over the rate, for each noise
    train, runs = __import__("train"), __import__("runs")
    names = set()
    for line in re.findall(r"train\.py (.*?)(?: \$\(|$)", plan, re.MULTILINE):
        args = train.parse_args(shlex.split(line))
        assert args.run == runs.run_name(vars(args))
        names.add((str(args.data), args.run))
    assert len(names) == 40 and ("data/none-here-symmetric20.npz", "dis0-small_cnn-seed1") in names
    generate = __import__("generate")
    made = [
        generate.parse_args(shlex.split(line)) for line in re.findall(r"generate\.py (.*)", plan)
    ]
    found = {(args.noise, args.rate, str(args.out)) for args in made}
    assert ("symmetric", 0.2, "data/none-here-symmetric20.npz") in found and len(found) == 4


def test_the_other_targets_are_studies():
    plan = make("--dry-run", "laptop", "IMAGES=somewhere", "PYTHON=python").replace("\\\n", "")
    assert plan.count("train.py") == 9 and plan.count("--teacher=previous-epoch") == 3
    assert '--dataset "somewhere" --noise pair --rate 0.4 --train-size 12000' in plan
    assert make("--dry-run", "demo", "PYTHON=python").count("train.py") in (0, 2)
    assert "shake26-2x32d-seed0" in make("--dry-run", "paper", "PYTHON=python")


def test_a_second_make_does_nothing_and_an_interrupted_one_goes_on(tmp_path):
    for path in ROOT.glob("*.py"):
        os.symlink(path, tmp_path / path.name)
    for name in ("models", "Makefile", "requirements.txt"):
        os.symlink(ROOT / name, tmp_path / name)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/installed").touch()
    words = ["make", "study", f"PYTHON={sys.executable}", "IMAGES=shapes", "NETWORK=shake8-2x4d"]
    words += [
        "GENERATE=--train-size 90 --val-size 30 --test-size 40",
        f"TRAIN={' '.join(SMALL)}",
    ]

    def study():
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)

    done = study()
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "figures/shapes-pair40").iterdir()} == FIGURES
    again = study()
    assert again.returncode == 0 and ".py" not in again.stdout
    # As if make had been stopped before this run was complete.
    stopped = tmp_path / "runs/shapes-pair40/dis1-shake8-2x4d-seed0"
    before = (stopped / "logits.npy").read_bytes()
    (stopped / "done").unlink()
    (stopped / "frequency.json").unlink()
    resumed = study()
    assert resumed.returncode == 0 and "--resume" in resumed.stdout
    assert resumed.stdout.count("train.py") == 1 and "generate.py" not in resumed.stdout
    assert (stopped / "logits.npy").read_bytes() == before
