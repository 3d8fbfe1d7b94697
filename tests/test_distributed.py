"""training/distributed.py: one run on two processes equals that on one."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers import PROGRAMS, ROOT, SMALL_RUN, history, make_dataset, run_python
from programs.train_small_network import double, keeping

from common.command_line import UserError
from common.run_folder import LOGITS, read_config, read_outputs
from dataset.data_file import write_dataset
from models import MODELS
from training import checkpoint, distributed
from training.epoch import evaluate
from training.run import evaluate_run, load_network

RUNS = Path("runs/small")
DOUBLE = "--model=double"
VARIANTS = {
    "plain": f"{DOUBLE} --dis=0 --ema-decay=0.5",
    "batch": f"{DOUBLE} --dis=1 --lr=0.2",
    "previous": f"{DOUBLE} --dis=1 --teacher=previous-epoch --soft",
    "elr": f"{DOUBLE} --loss=early-learning-regularization",
}
# 61 images in batches of 20: the last batch has one, and leaves the second rank without.
FLAGS = " ".join([*SMALL_RUN, "--epochs=3", "--batch-size=20"])
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x"}


def train_on_two(*runs):
    """Train runs, each named by its flags in one string, on two processes; returns their output."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    # Without the `--`, torchrun would take --run for its own --run-path.
    done = run_python(*torchrun, "--", PROGRAMS / "train_small_network.py", *runs)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def train_on(script, monkeypatch):
    """Train runs on one process, which is this one, or on two: train_on(processes, *runs)."""
    monkeypatch.setitem(MODELS, "double", double)
    monkeypatch.setattr(checkpoint, "save", keeping(checkpoint.save))

    def train(processes, *runs):
        if processes == 2:
            return train_on_two(*runs)
        ends = [script("train", *words.split()) for words in runs]
        assert [(status, err) for status, _, err in ends] == [(0, "")] * len(runs)
        return "".join(out for _, out, _ in ends)

    return train


def assert_equal_histories(run, other):
    for record, expected in zip(history(run), history(other), strict=True):
        assert record.keys() == expected.keys()
        for key in record.keys() - {"sha256"}:
            value = expected[key]
            near = value if value is None else pytest.approx(value, rel=1e-6)
            assert record[key] == near, key


@pytest.mark.slow
def test_two_processes_equal_one(workplace, train_on):
    dataset = make_dataset(train=61, val=7)
    write_dataset(Path("data/small.npz"), dataset)
    shake = f"{FLAGS} --model=shake_resnet --depth=8 --width=4 --dis=1 --run=shake"
    for world_size, name in ((1, "one"), (2, "two")):
        runs = [f"{FLAGS} {flags} --run={name}-{v}" for v, flags in VARIANTS.items()]
        out = train_on(world_size, *runs, *[shake] * (world_size - 1))
        # Rank 0 alone prints.
        assert out.count("  2/3: ") == out.count("done:") == len(VARIANTS) + world_size - 1
    for variant in VARIANTS:
        one, two = RUNS / f"one-{variant}", RUNS / f"two-{variant}"
        assert len(history(two)) == 3
        assert_equal_histories(two, one)
        for name in LOGITS:
            outputs = [read_outputs(run, name) for run in (one, two)]
            np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-5)
        assert "2 processes" in read_config(two)["device"]

    # With BatchNorm and shake, too, the outputs on disk are those of the checkpoint on disk.
    model, _ = load_network(RUNS / "shake", dataset, torch.device("cpu"))
    expected = evaluate(model, torch.from_numpy(dataset.test_images))
    last = read_outputs(RUNS / "shake", LOGITS[0])[-1]
    np.testing.assert_allclose(last, expected, rtol=1e-4, atol=1e-5)

    # What two processes began one goes on with, and the other way round; a complete run ends.
    resumed = {f"{name}-{v}": v for name in ("one", "two") for v in ("previous", "elr")}
    before = {name: history(RUNS / name) for name in resumed}
    complete = {path: path.read_bytes() for path in RUNS.glob("two-plain/*.*")}
    for world_size, name in ((2, "one"), (1, "two")):
        runs = []
        for run in (run for run in resumed if run.startswith(name)):
            os.replace(RUNS / run / "epoch2.pt", RUNS / run / "checkpoint.pt")
            runs.append(f"{FLAGS} {VARIANTS[resumed[run]]} --run={run} --resume=auto")
        out = train_on(
            world_size, *runs, f"{FLAGS} {VARIANTS['plain']} --run=two-plain --resume=auto"
        )
        assert out.count("from epoch 3\n") == 2
        assert out.endswith(f"done: {RUNS / 'two-plain'}\n") and out.count("two-plain") == 1
    assert {path: path.read_bytes() for path in complete} == complete
    for run, records in before.items():
        objectives = [record["train_objective"] for record in records]
        found = [record["train_objective"] for record in history(RUNS / run)]
        assert found == pytest.approx(objectives, rel=1e-6) and len(found) == 3


@pytest.mark.slow
def test_a_mistake_is_said_once_and_ends_all_processes(workplace):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--"]
    done = run_python(*torchrun, ROOT / "train.py", *SMALL_RUN, "--teacher=uniform")
    line = "train.py: error: --teacher belongs to --loss self-distillation; add that"
    assert done.returncode != 0 and done.stderr.count(line) == 1
    assert not Path("runs").exists()


def test_without_torchrun_nothing_changes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # left by another program
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


@pytest.mark.parametrize(("rank", "share"), [(0, 3 / 7), (1, 2 / 7), (2, 2 / 7)])
def test_share_of_a_batch_by_hand(monkeypatch, rank, share):
    # Of 7 images, three ranks take 0 3 6, 1 4 and 2 5.
    for name, value in {**TORCHRUN, "RANK": str(rank)}.items():
        monkeypatch.setenv(name, value)
    assert distributed.share_of_batch(7) == share and distributed.is_main() == (rank == 0)
    assert distributed.share_of_batch(1) == (rank == 0)


def test_one_process_measures_and_each_has_a_gpu(monkeypatch, tmp_path):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"--evaluate: one process .* leave torchrun out"):
        evaluate_run(tmp_path, None, "cpu")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"process 2 .* no GPU; use --nproc-per-node=1,"):
        distributed.own_device(torch.device("cuda"))
    assert distributed.own_device(torch.device("cpu")) == torch.device("cpu")
