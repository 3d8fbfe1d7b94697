"""Both orders of the scripts, as a user runs them, and what the README promises of them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import ROOT, run_python

RUNS = Path("runs/shapes-pair40")
FROM_HISTORY = {"accuracy.png", "loss.png"}
FROM_FREQUENCY = {"memorization.png", "frequency.png", "errors.png", "order.png"}
SMALL = ["--model=small_cnn", "--epochs=2", "--batch-size=20", "--lr=0.05", "--device=cpu"]


def run(name, *flags):
    """Run a script from the working folder in a process of its own; it must succeed."""
    done = run_python(ROOT / f"{name}.py", *flags)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done


@pytest.fixture(scope="module")
def orders(tmp_path_factory):
    """Both orders over the same runs, in two folders; what plot.py said before frequency.py."""
    first = tmp_path_factory.mktemp("pipeline") / "frequency first"
    second = first.with_name("collect first")
    first.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(first)
        sizes = ["--train-size=60", "--val-size=20", "--test-size=40"]
        out = run("generate", "--dataset=shapes", *sizes).stdout
        assert "python train.py --dis=0 --data data/shapes-pair40.npz" in out
        for dis in (0, 1):
            run("train", f"--dis={dis}", "--data=data/shapes-pair40.npz", *SMALL)
        shutil.copytree(first, second)
        run("frequency")
        run("plot")
        run("collect_history")
        patch.chdir(second)
        run("collect_history")
        assert not (RUNS / "frequency.json").exists()
        early = run("plot", RUNS / "history.json")
        assert {path.name for path in Path("figures/shapes-pair40").iterdir()} >= FROM_HISTORY
        assert not (Path("figures/shapes-pair40") / "frequency.png").exists()
        run("frequency", RUNS)
        run("collect_history", RUNS)
        run("plot", RUNS / "history.json")
    return first, second, early.stderr


@pytest.mark.slow
def test_both_orders_make_the_same_files(orders):
    first, second, early = orders
    assert "not drawn: " in early and "frequency.py" in early
    for name in ("history.json", "results.json"):
        contents = [json.loads((folder / RUNS / name).read_text()) for folder in (first, second)]
        assert contents[0] == contents[1], name
    names = {path.name for path in (first / "figures/shapes-pair40").iterdir()}
    assert names >= FROM_HISTORY | FROM_FREQUENCY
    for name in names:
        paths = [folder / "figures/shapes-pair40" / name for folder in (first, second)]
        assert paths[0].read_bytes() == paths[1].read_bytes(), name


def test_make_and_the_readme_name_scripts_and_targets_that_exist():
    text = (ROOT / "README.md").read_text("utf-8")
    for name in re.findall(r"^    python (\w+\.py)", text, re.MULTILINE):
        assert (ROOT / name).exists(), name
    for target in set(re.findall(r"\bmake (demo|test|quick|lint|bench|paper)\b", text)):
        words = ["make", "--dry-run", target, "PYTHON=python3"]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and "python3 " in done.stdout and "pip" not in done.stdout
