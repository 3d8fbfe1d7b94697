"""Both orders of the scripts, and what they hand to each other."""

import json
import os
import shutil
from pathlib import Path

import pytest

RUNS, FIGURES = Path("runs/shapes-pair40"), Path("figures/shapes-pair40")
FROM_HISTORY = {"accuracy.png", "loss.png"}
FROM_FREQUENCY = {"memorization.png", "frequency.png", "errors.png", "order.png"}
SMALL = ["--model=small_cnn", "--epochs=2", "--batch-size=20", "--lr=0.05", "--device=cpu"]


@pytest.mark.slow
def test_both_orders_make_the_same_files(script, tmp_path, monkeypatch):
    def run(name, *flags):
        status, out, err = script(name, *flags)
        assert status == 0, err
        return out, err

    first, second = tmp_path / "frequency first", tmp_path / "collect first"
    first.mkdir()
    monkeypatch.chdir(first)
    out, _ = run(
        "generate", "--dataset=shapes", "--train-size=60", "--val-size=20", "--test-size=40"
    )
    assert "python train.py --dis=0 --data data/shapes-pair40.npz" in out
    for dis in (0, 1):
        run("train", f"--dis={dis}", "--data=data/shapes-pair40.npz", *SMALL)
    shutil.copytree(first, second)
    for name in ("frequency", "plot", "collect_history"):
        run(name)
    monkeypatch.chdir(second)
    run("collect_history")
    assert not (RUNS / "frequency.json").exists()
    _, err = run("plot", RUNS / "history.json")
    assert "not drawn: " in err and "frequency.py" in err
    names = set(os.listdir(FIGURES))
    assert names >= FROM_HISTORY and not names & {"frequency.png", "errors.png", "order.png"}
    run("frequency", RUNS)
    run("collect_history", RUNS)
    run("plot", RUNS / "history.json")
    for name in ("history.json", "results.json"):
        one, other = (json.loads((folder / RUNS / name).read_text()) for folder in (first, second))
        assert one == other, name
    names = set(os.listdir(first / FIGURES))
    assert names >= FROM_HISTORY | FROM_FREQUENCY
    for name in names:
        one, other = (folder / FIGURES / name for folder in (first, second))
        assert one.read_bytes() == other.read_bytes(), name
