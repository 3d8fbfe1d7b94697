"""--ema-decay: the averaged weights against a slow loop, on disk, and after a resume."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import SMALL_RUN, assert_equal_runs, history, make_dataset

from common.logits import read_logits
from common.run_folder import read_config
from dataset.data_file import write_dataset
from models.small_cnn import small_cnn
from training import checkpoint
from training.epoch import train_epoch
from training.prepare import averaged
from training.settings import RunSettings

FLAGS = [*SMALL_RUN, "--dis=1", "--teacher=previous-epoch", "--ema-decay=0.9", "--epochs=3"]
FILES = ("logits.npy", "train_logits.npy", "val_logits.npy")


@pytest.fixture
def held_out(tmp_path, monkeypatch):
    """A working folder whose data set has held-out images."""
    monkeypatch.chdir(tmp_path)
    write_dataset(tmp_path / "data/small.npz", make_dataset(val=20))


def test_the_average_against_a_slow_loop_in_float64():
    dataset, decay = make_dataset(train=40), 0.7
    arrays = dataset.train_images, dataset.train_labels, dataset.clean_labels
    torch.manual_seed(0)
    model = small_cnn(4)
    average, slow = averaged(model, decay), []
    optimizer = torch.optim.SGD(model.parameters(), 0.05)

    def follow(*_):
        for k, tensor in enumerate((*model.parameters(), *model.buffers())):
            now = tensor.detach().double().numpy().copy()
            if len(slow) <= k:
                slow.append(now)  # the first step's weights are where the average starts
            else:
                slow[k] = decay * slow[k] + (1 - decay) * now

    optimizer.register_step_post_hook(follow)
    settings = RunSettings(batch_size=16, augment=False, epochs=2, lr=0.05, amp=False)
    train_epoch(
        model, optimizer, [torch.from_numpy(a) for a in arrays], settings, 1, average=average
    )
    assert int(average.n_averaged) == 3
    tensors = (*average.module.parameters(), *average.module.buffers())
    moved = 0
    for tensor, own, expected in zip(
        tensors, (*model.parameters(), *model.buffers()), slow, strict=True
    ):
        if tensor.is_floating_point():
            np.testing.assert_allclose(tensor.detach(), expected, rtol=1e-5, atol=1e-7)
            moved += not torch.equal(tensor, own)
    assert moved > 10


def test_the_average_is_evaluated_and_kept_and_training_does_not_see_it(held_out, script):
    assert script("train", *FLAGS)[0] == 0
    assert script("train", *FLAGS, "--ema-decay=0", "--run=plain")[0] == 0
    run, plain = (
        Path("runs/small", name) for name in ("dis1-previous-epoch-small_cnn-ema0.9-seed0", "plain")
    )
    assert read_config(run)["network"] == "small_cnn, averaged weights, decay 0.9"
    content, other = checkpoint.read(run, "cpu"), checkpoint.read(plain, "cpu")
    for name, tensor in content["model"].items():
        assert torch.equal(tensor, other["model"][name])
    trained = ("train_objective", "train_accuracy", "agreement")
    for record, expected in zip(history(run), history(plain), strict=True):
        assert all(record[name] == expected[name] for name in trained)
    for name in FILES:
        assert not np.array_equal(read_logits(run / name)[0], read_logits(plain / name)[0])
    accuracy = history(run)[-1]["test_accuracy"]
    assert f"test accuracy {accuracy:.2f}%" in script("train", "--evaluate", run)[1]


def test_a_stopped_and_resumed_run_equals_one_that_never_stopped(held_out, script, monkeypatch):
    assert script("train", *FLAGS, "--run=whole")[0] == 0
    save = checkpoint.save

    def stopping(*args):
        save(*args)
        if args[3] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", stopping)
        assert script("train", *FLAGS, "--run=stopped")[0] == 130
    stopped, whole = Path("runs/small/stopped"), Path("runs/small/whole")
    assert len(history(stopped)) == 2
    assert script("train", *FLAGS, "--run=stopped", "--resume")[0] == 0
    assert_equal_runs(stopped, whole, 3)
    for name in FILES:
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
    one, other = (checkpoint.read(run, "cpu")["average"] for run in (stopped, whole))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_resuming_with_another_decay_is_refused(held_out, script, refused):
    assert script("train", *FLAGS, "--epochs=1", "--run=a")[0] == 0
    message = refused("train", *FLAGS, "--epochs=1", "--run=a", "--ema-decay=0.5", "--resume")
    assert "ema_decay = 0.9, not 0.5" in message


@pytest.mark.parametrize("decay", ["1", "-0.1", "nan", "much"])
def test_a_decay_outside_0_to_1_is_refused(refused, decay):
    assert "--ema-decay" in refused("train", f"--ema-decay={decay}")


def test_each_record_has_the_digests_of_its_outputs(held_out, script):
    assert script("train", *FLAGS)[0] == 0
    run = Path("runs/small/dis1-previous-epoch-small_cnn-ema0.9-seed0")
    for epoch, record in enumerate(history(run)):
        assert set(record["sha256"]) == set(FILES)
        for name, digest in record["sha256"].items():
            values = np.ascontiguousarray(read_logits(run / name)[0][epoch])
            assert hashlib.sha256(values.tobytes()).hexdigest() == digest


def test_the_memorization_gap_of_the_record(held_out, script):
    assert script("train", *FLAGS, "--run=a")[0] == 0
    dataset = make_dataset(val=20)
    wrong = dataset.train_labels != dataset.clean_labels
    for epoch, record in enumerate(history(Path("runs/small/a"))):
        outputs = read_logits(Path("runs/small/a/train_logits.npy"))[0][epoch]
        correct = outputs.argmax(1) == dataset.clean_labels
        assert record["sample_clean_accuracy_right"] == pytest.approx(100 * correct[~wrong].mean())
        assert record["sample_clean_accuracy_wrong"] == pytest.approx(100 * correct[wrong].mean())
