"""training/distributed.py: one run on two processes equals that on one."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from helpers import PROGRAMS, SMALL_RUN, history, make_dataset, run_python
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
RESUMED = ("previous", "elr")
# 61 images in batches of 20: the last batch has one, and leaves the second rank without.
FLAGS = " ".join([*SMALL_RUN, "--epochs=3", "--batch-size=20"])
TORCHRUN = {"RANK": "1", "WORLD_SIZE": "3", "LOCAL_RANK": "1", "TORCHELASTIC_RUN_ID": "x"}


def assert_equal_histories(run, other):
    assert len(history(run)) == 3
    for record, expected in zip(history(run), history(other), strict=True):
        assert record.keys() == expected.keys()
        for key in record.keys() - {"sha256"}:
            value = expected[key]
            near = value if value is None else pytest.approx(value, rel=1e-6)
            assert record[key] == near, key


def on_two_processes(*runs):
    """Train runs, each named by its flags in one string; what they print, and their errors."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    # Without the `--`, torchrun would take --run for its own --run-path.
    done = run_python(*torchrun, "--", PROGRAMS / "train_small_network.py", *runs)
    return done.returncode, done.stdout, done.stderr


def begun(variant, name):
    """The flags that go on with a copy of a run as it was after two epochs."""
    copy = RUNS / f"begun-{name}-{variant}"
    shutil.copytree(RUNS / f"{name}-{variant}", copy)
    os.replace(copy / "epoch2.pt", copy / "checkpoint.pt")
    return f"{FLAGS} {VARIANTS[variant]} --run={copy.name} --resume=auto"


def files_of(run):
    return {path: path.read_bytes() for path in (RUNS / run).glob("*.*")}


@pytest.mark.slow
def test_two_processes_equal_one(workplace, script, monkeypatch):
    monkeypatch.setitem(MODELS, "double", double)
    monkeypatch.setattr(checkpoint, "save", keeping(checkpoint.save))
    dataset = make_dataset(train=61, val=7)
    write_dataset(Path("data/small.npz"), dataset)
    one, two = (
        [f"{FLAGS} {flags} --run={name}-{variant}" for variant, flags in VARIANTS.items()]
        for name in ("one", "two")
    )
    for words in one:
        assert script("train", *words.split())[0] == 0
    # What one process began two go on with; a complete run ends; a mistake is said once and ends
    # all processes.
    two += [f"{FLAGS} --model=shake_resnet --depth=8 --width=4 --dis=1 --run=shake"]
    resumed, complete = [begun(variant, "one") for variant in RESUMED], files_of("one-plain")
    status, out, err = on_two_processes(*two, *resumed, f"{one[0]} --resume=auto", "--q=0.5")
    assert status != 0 and err.count("error: --q belongs to") == 1, err
    # Rank 0 alone prints.
    second, third = len(two), len(two) + len(resumed)
    assert (out.count("  2/3 loss "), out.count("  3/3 loss ")) == (second, third), err
    assert out.count("done:") == len([*two, *resumed, one[0]])
    assert out.count("from epoch 3\n") == len(resumed)
    assert out.endswith(f"done: {RUNS / 'one-plain'}\n") and out.count("one-plain") == 1
    assert files_of("one-plain") == complete

    for variant in VARIANTS:
        runs = RUNS / f"one-{variant}", RUNS / f"two-{variant}"
        assert_equal_histories(*runs)
        for name in LOGITS:
            outputs = [read_outputs(run, name) for run in runs]
            np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-5)
        assert "2 processes" in read_config(runs[1])["device"]
    # With BatchNorm and shake, too, the outputs on disk are those of the checkpoint on disk.
    model, _ = load_network(RUNS / "shake", dataset, torch.device("cpu"))
    expected = evaluate(model, torch.from_numpy(dataset.test_images))
    last = read_outputs(RUNS / "shake", LOGITS[0])[-1]
    np.testing.assert_allclose(last, expected, rtol=1e-4, atol=1e-5)

    # The other way round: one process goes on with what two began.
    complete = files_of("two-plain")
    for words in (begun(variant, "two") for variant in RESUMED):
        status, out, _ = script("train", *words.split())
        assert status == 0 and "from epoch 3\n" in out
    words = f"{two[0]} --resume=auto"
    assert script("train", *words.split()) == (0, f"done: {RUNS / 'two-plain'}\n", "")
    assert files_of("two-plain") == complete
    for variant in RESUMED:
        for name in ("one", "two"):
            assert_equal_histories(RUNS / f"{name}-{variant}", RUNS / f"begun-{name}-{variant}")


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
