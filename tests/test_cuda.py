"""Training on a CUDA device: a loss near the CPU's, resuming, evaluation. `pytest -m cuda`."""

import re
from pathlib import Path

import pytest
import torch
from helpers import SHAKE, SMALL_RUN, history
from test_resume import stopped

from training import checkpoint

pytestmark = pytest.mark.cuda

RUNS = Path("runs/small")
EPOCHS = 3
LOSSES = ("train_objective", "train_cross_entropy", "test_cross_entropy")


def train(script, name, *flags) -> str:
    """Train a run of this name; returns what train.py printed."""
    flags = [*SMALL_RUN, "--lr=0.01", f"--epochs={EPOCHS}", "--dis=1", f"--run={name}", *flags]
    status, out, err = script("train", *flags)
    assert (status, err) == (0, ""), err
    return out


def assert_near(records, expected, tolerance):
    for record, other in zip(records, expected, strict=True):
        for name in LOSSES:
            assert record[name] == pytest.approx(other[name], rel=tolerance), name


@pytest.mark.parametrize(("flag", "tolerance"), [("--no-amp", 0.01), ("--amp", 0.02)])
def test_the_losses_are_near_those_of_the_cpu(workplace, script, flag, tolerance):
    # small_cnn draws no shake coefficients, which differ between devices; the order does not. On a
    # CPU, bfloat16 moves these losses by at most 0.3%, another seed by 4% and more.
    train(script, "cpu")
    out = train(script, "cuda", "--device=cuda", flag)
    assert torch.cuda.get_device_name() in out
    assert_near(history(RUNS / "cuda"), history(RUNS / "cpu"), tolerance)


@pytest.mark.parametrize(
    "flags",
    [["--teacher=previous-epoch", "--ema-decay=0.9"], SHAKE],
    ids=["averaged small_cnn", "shake_resnet"],
)
def test_a_resumed_run_is_near_one_that_never_stopped(workplace, script, flags):
    flags = [*flags, "--device=cuda", "--no-amp"]
    train(script, "whole", *flags)
    with stopped(checkpoint, "save", 3, after=True):  # the first is of the start
        words = [*SMALL_RUN, "--lr=0.01", f"--epochs={EPOCHS}", "--dis=1", "--run=a", *flags]
        assert script("train", *words)[0] == 130
    before = history(RUNS / "a")
    assert f"from epoch {EPOCHS}\n" in train(script, "a", *flags, "--resume")
    assert history(RUNS / "a")[:2] == before
    assert_near(history(RUNS / "a"), history(RUNS / "whole"), 1e-2)


def test_evaluation_gives_what_training_measured(workplace, script):
    train(script, "a", *SHAKE, "--device=cuda")
    last = history(RUNS / "a")[-1]
    status, out, err = script("train", "--evaluate", RUNS / "a", "--device=cpu")
    assert (status, err) == (0, "")
    accuracy, loss = re.search(r"test accuracy ([\d.]+)%, test loss ([\d.]+)", out).groups()
    # An image between two classes may go either way: two of 40.
    assert float(accuracy) == pytest.approx(last["test_accuracy"], abs=5.1)
    assert float(loss) == pytest.approx(last["test_cross_entropy"], rel=1e-2)


@pytest.mark.slow
def test_compiled_training_is_near_the_plain_one(workplace, script):
    train(script, "plain", "--device=cuda", "--no-amp")
    train(script, "compiled", "--device=cuda", "--no-amp", "--compile")
    assert_near(history(RUNS / "compiled"), history(RUNS / "plain"), 1e-2)
