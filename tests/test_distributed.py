"""training/distributed.py: one run on two processes equals that on one."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers import PROGRAMS, ROOT, SMALL_RUN, history, make_dataset, run_python

from common.logits import read_logits
from common.run_folder import read_config
from dataset.batches import normalize
from dataset.data_file import read_dataset, write_dataset
from models.shake_resnet import shake_resnet
from training import checkpoint, distributed

RUNS = Path("runs/small")
VARIANTS = {
    "plain": "--dis=0",
    "batch": "--dis=1 --lr=0.2",
    "previous": "--dis=1 --teacher=previous-epoch",
    "soft": "--dis=1 --teacher=previous-epoch --soft",
    "smooth": "--dis=1 --teacher=uniform --weight=0.2",
}
# 61 images in batches of 20: the last batch has one, and leaves the second rank without.
FLAGS = " ".join([*SMALL_RUN, "--epochs=3", "--batch-size=20"])


def run_on(world_size, *words):
    """Run python on so many processes; returns the standard output."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world_size}"]
    # Without the `--`, torchrun would take --run for its own --run-path.
    done = run_python(*([*torchrun, "--"] if world_size > 1 else []), *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def train_on(world_size, *runs):
    """Train runs of the small float64 network, each named by its flags in one string."""
    return run_on(world_size, PROGRAMS / "train_small_network.py", *runs)


def assert_equal_histories(run, other):
    for record, expected in zip(history(run), history(other), strict=True):
        assert record.keys() == expected.keys()
        for key in expected.keys() - {"sha256"}:  # digests are of bits, which differ
            value = expected[key]
            near = value if value is None else pytest.approx(value, rel=1e-6)
            assert record[key] == near, key


@pytest.mark.slow
def test_two_processes_equal_one(workplace):
    write_dataset(Path("data/small.npz"), make_dataset(train=61, val=7))
    for world_size, name in ((1, "one"), (2, "two")):
        runs = [f"{FLAGS} {flags} --run={name}-{v}" for v, flags in VARIANTS.items()]
        out = train_on(world_size, *runs)
        # Rank 0 alone prints.
        assert out.count("epoch 2/3") == out.count("done:") == len(VARIANTS)
    for variant in VARIANTS:
        one, two = RUNS / f"one-{variant}", RUNS / f"two-{variant}"
        assert len(history(two)) == 3
        assert_equal_histories(two, one)
        logits = [read_logits(run / "logits.npy")[0] for run in (one, two)]
        np.testing.assert_allclose(*logits, rtol=1e-5, atol=1e-6)
        assert "2 processes" in read_config(two)["device"]

    # What two processes began one goes on with, and the other way round.
    before = {name: history(RUNS / name) for name in ("one-previous", "two-previous")}
    for world_size, name in ((2, "one-previous"), (1, "two-previous")):
        os.replace(RUNS / name / checkpoint.PREVIOUS, RUNS / name / checkpoint.NAME)
        out = train_on(world_size, f"{FLAGS} {VARIANTS['previous']} --run={name} --resume=auto")
        assert "from epoch 3" in out
        objectives = [record["train_objective"] for record in before[name]]
        resumed = [record["train_objective"] for record in history(RUNS / name)]
        assert resumed == pytest.approx(objectives, rel=1e-6) and len(resumed) == 3
    assert_equal_histories(RUNS / "one-previous", RUNS / "two-previous")

    # A complete run ends at once on every rank.
    before = {path: path.read_bytes() for path in RUNS.glob("two-plain/*")}
    out = train_on(2, f"{FLAGS} {VARIANTS['plain']} --run=two-plain --resume=auto")
    assert out == f"done: {RUNS / 'two-plain'}\n"
    assert {path: path.read_bytes() for path in RUNS.glob("two-plain/*")} == before


@pytest.mark.slow
def test_network_with_batchnorm_and_shake(workplace):
    flags = [*SMALL_RUN, "--epochs=2", "--dis=1", "--model=shake_resnet", "--depth=8", "--width=4"]
    run_on(2, ROOT / "train.py", *flags, "--run=a")
    # The logits on disk are those of the checkpoint on disk.
    dataset = read_dataset(Path("data/small.npz"))
    model = shake_resnet(8, 4, 4)
    model.load_state_dict(checkpoint.read(RUNS / "a", "cpu")["model"])
    model.eval()
    with torch.no_grad():
        expected = model(normalize(torch.from_numpy(dataset.test_images)))
    logits = read_logits(RUNS / "a/logits.npy")[0]
    assert logits.shape == (2, 40, 4)
    np.testing.assert_allclose(logits[-1], expected, rtol=1e-4, atol=1e-5)


def test_without_torchrun_nothing_changes():
    assert distributed.world_size() == 1 and distributed.is_main()
    tensor, model = torch.arange(3.0), torch.nn.Linear(2, 2)
    assert distributed.all_reduce_sum(tensor) is tensor and tensor.tolist() == [0, 1, 2]
    cpu = torch.device("cpu")
    assert distributed.wrap_ddp(model, cpu) is model
    distributed.init(cpu)
    assert not dist.is_initialized()
    assert distributed.own_device(cpu) == cpu and distributed.share_of_batch(7) == 1
    distributed.barrier()
    distributed.destroy()


@pytest.mark.slow  # DistributedDataParallel loads the compiler
@pytest.mark.filterwarnings("error")
def test_forward_passes_send_no_buffers(monkeypatch):
    cpu, model = torch.device("cpu"), torch.nn.BatchNorm1d(2)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    monkeypatch.setenv("WORLD_SIZE", "2")  # as far as wrap_ddp knows
    try:
        assert not distributed.wrap_ddp(model, cpu).will_sync_module_buffers()
    finally:
        distributed.destroy()


@pytest.mark.parametrize(("rank", "share"), [(0, 3 / 7), (1, 2 / 7), (2, 2 / 7)])
def test_share_of_a_batch_by_hand(monkeypatch, rank, share):
    # Of 7 images, three ranks take 0 3 6, 1 4 and 2 5.
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", str(rank))
    assert distributed.share_of_batch(7) == share and distributed.is_main() == (rank == 0)
    assert distributed.share_of_batch(1) == (rank == 0)
