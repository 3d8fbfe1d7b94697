"""processes.py: one run on two processes equals that on one."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL_RUN, history, make_dataset

import checkpoint
import data
import processes
import runs
import train

ROOT = Path(__file__).parent.parent
RUNS = Path("runs/small")
# The network of these runs is float64, smooth and without BatchNorm, whose statistics are of each
# process's own images on CPUs: what is left is what the processes have to agree on.
DRIVER = """
import sys, torch
from torch import nn
import processes, train

class Double(nn.Module):
    def forward(self, x):
        return x.double()

def make_model(args, dataset):
    return nn.Sequential(
        Double(), nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(), nn.Linear(288, 4)
    ).double()

train.make_model = make_model
leave, processes.leave = processes.leave, lambda: None
for words in sys.argv[1:]:
    assert train.main(words.split()) == 0
leave()
"""
VARIANTS = {
    "plain": "--dis=0",
    "batch": "--dis=1 --lr=0.2",
    "previous": "--dis=1 --teacher=previous-epoch",
    "soft": "--dis=1 --teacher=previous-epoch --soft",
    "smooth": "--dis=1 --teacher=uniform --weight=0.2",
}
# 61 images in batches of 20: the last batch has one, and leaves the second process without.
FLAGS = " ".join([*SMALL_RUN, "--epochs=3", "--batch-size=20"])


def run_driver(processes_wanted, runs_wanted):
    """Train runs with the driver on so many processes; returns the standard output."""
    Path("driver.py").write_text(DRIVER)
    start = [sys.executable]
    if processes_wanted > 1:
        start += ["-m", "torch.distributed.run", "--standalone"]
        start += [f"--nproc-per-node={processes_wanted}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*start, "driver.py", *runs_wanted], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def agree(one, other, rel=1e-6):
    records = zip(history(one), history(other), strict=True)
    for alone, together in records:
        assert alone.keys() == together.keys()
        for key, value in alone.items():
            expected = value if value is None else pytest.approx(value, rel=rel)
            assert together[key] == expected, key


def test_two_processes_equal_one(workplace):
    data.write_dataset(Path("data/small.npz"), make_dataset(train=61, val=7))
    for count, prefix in ((1, "one"), (2, "two")):
        out = run_driver(
            count, [f"{FLAGS} {flag} --run={prefix}-{v}" for v, flag in VARIANTS.items()]
        )
        # Printed once, by one of them.
        assert out.count("epoch 2/3") == out.count("done:") == len(VARIANTS)
    for variant in VARIANTS:
        one, two = RUNS / f"one-{variant}", RUNS / f"two-{variant}"
        assert len(history(two)) == 3
        agree(one, two)
        logits = [runs.read_logits(run / "logits.npy")[0] for run in (one, two)]
        np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-6)
        assert "2 processes" in runs.read_config(two)["device"]

    # What two began one goes on with, and the other way round.
    for name in ("one-previous", "two-previous"):
        os.replace(RUNS / name / checkpoint.PREVIOUS, RUNS / name / checkpoint.NAME)
    before = history(RUNS / "one-previous")
    for count, name in ((2, "one-previous"), (1, "two-previous")):
        out = run_driver(count, [f"{FLAGS} {VARIANTS['previous']} --run={name} --resume"])
        assert "from epoch 3" in out
        assert len(history(RUNS / name)) == 3
        agree(RUNS / name, RUNS / "two-previous")
    assert [r["train_objective"] for r in before] == pytest.approx(
        [r["train_objective"] for r in history(RUNS / "one-previous")], rel=1e-6
    )


def test_a_network_with_batchnorm_and_shake(workplace):
    flags = [*SMALL_RUN, "--epochs=2", "--dis=1", "--model=shake_resnet", "--depth=8", "--width=4"]
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    start += ["--"]  # torchrun would take --run for its own --run-path
    done = subprocess.run(
        [*start, str(ROOT / "train.py"), *flags, "--run=a"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # The logits written are those of the checkpoint written.
    dataset = data.read_dataset(Path("data/small.npz"))
    model = train.shake_resnet(8, 4, 4)
    model.load_state_dict(checkpoint.read(RUNS / "a", "cpu")["model"])
    model.eval()
    with torch.no_grad():
        expected = model(data.normalize(torch.from_numpy(dataset.test_images)))
    logits = runs.read_logits(RUNS / "a/logits.npy")[0]
    assert logits.shape == (2, 40, 4)
    np.testing.assert_allclose(logits[-1], expected, rtol=1e-4, atol=1e-5)


def test_one_process_changes_nothing():
    assert processes.count() == 1 and processes.is_main()
    tensor, model = torch.arange(3.0), torch.nn.Linear(2, 2)
    assert processes.add_up(tensor) is tensor and tensor.tolist() == [0, 1, 2]
    assert processes.parallel(model, torch.device("cpu")) is model
    assert processes.join(torch.device("cpu")) == torch.device("cpu")
    processes.wait()
    processes.leave()
