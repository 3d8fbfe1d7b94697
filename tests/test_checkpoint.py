"""training/checkpoint.py: round trip, every kind of damage, other networks and settings."""

import errno
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from helpers import Bomb, equal, pt
from torch import nn
from torch.optim.swa_utils import AveragedModel

from common.command_line import UserError
from losses import SelfDistillation
from training import checkpoint
from training.checkpoint import Trained

SETTINGS = {"lr": 0.1, "augment": True, "weight": None}
CPU = torch.device("cpu")


def trained(width=5, average=True, previous=(1, 0, 2)) -> Trained:
    """A small network after a step."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    model(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    loss = SelfDistillation("previous-epoch")
    loss.start(3)
    loss.previous = torch.tensor(previous)
    return Trained(model, optimizer, loss, AveragedModel(model) if average else None)


@pytest.fixture
def run(tmp_path):
    """A run's folder with the checkpoint of epoch 2."""
    checkpoint.save(tmp_path, trained(), 2, SETTINGS)
    return tmp_path


def test_round_trip(run):
    expected, other = trained(), trained(previous=(0, 0, 0))
    with torch.no_grad():
        for tensor in (*other.model.state_dict().values(), *other.average.state_dict().values()):
            tensor.zero_()
    other.optimizer.state.clear()
    assert checkpoint.load(run, other, SETTINGS, CPU) == 2
    assert other.loss.previous.tolist() == [1, 0, 2]
    for part in ("model", "optimizer", "average"):
        states = [dict(getattr(each, part).state_dict()) for each in (other, expected)]
        assert equal(*states), part
    assert [path.name for path in run.iterdir()] == ["checkpoint.pt"]
    checkpoint.save(run, trained(average=False), 3, SETTINGS)
    plain = trained(average=False)
    assert checkpoint.load(run, plain, SETTINGS, CPU) == 3


@pytest.mark.parametrize("average", [True, False])
def test_the_weights_that_were_evaluated(run, average):
    saved = trained(average=average)
    if average:
        with torch.no_grad():
            saved.average.module[0].weight.fill_(7)
    checkpoint.save(run, saved, 2, SETTINGS)
    model = trained().model
    checkpoint.load_evaluated(run, model, checkpoint.read(run))
    expected = saved.average.module if average else saved.model
    assert equal(dict(model.state_dict()), dict(expected.state_dict()))
    with pytest.raises(UserError, match="another network"):
        checkpoint.load_evaluated(run, nn.Linear(1, 1), checkpoint.read(run))


def zeros_within(content, raw):
    third = len(raw) // 3
    return raw[:third] + bytes(200) + raw[third + 200 :]


# What happens to a checkpoint: from its content and its bytes to its new bytes.
DAMAGE = {
    "bomb": lambda content, raw: pickle.dumps(Bomb(), protocol=2),
    "torch bomb": lambda content, raw: pt({**content, "model": Bomb()}),
    "old bomb": lambda content, raw: pt(
        {**content, "model": Bomb()}, _use_new_zipfile_serialization=False
    ),
    "list": lambda content, raw: pt([1, 2]),
    "other format": lambda content, raw: pt({**content, "format": 1}),
    "no epoch": lambda content, raw: pt({k: v for k, v in content.items() if k != "epoch"}),
    "no settings": lambda content, raw: pt({**content, "settings": None}),
    "truncated": lambda content, raw: raw[: len(raw) // 2],
    "empty": lambda content, raw: b"",
    "zeros within": zeros_within,
    "another archive": lambda content, raw: b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoint_is_refused_and_never_executed(run, monkeypatch, damage):
    monkeypatch.chdir(run)
    path = run / "checkpoint.pt"
    path.write_bytes(DAMAGE[damage](checkpoint.read(run), path.read_bytes()))
    with pytest.raises(UserError, match=r"checkpoint\.pt is damaged; .*--overwrite.* --run"):
        checkpoint.read(run)
    assert not (run / "executed").exists()


def test_flipped_bit_is_noticed_or_changes_nothing(run):
    path = run / "checkpoint.pt"
    raw, good = path.read_bytes(), checkpoint.read(run)
    random, refused = np.random.default_rng(0), 0
    for place in random.integers(0, len(raw), 60):
        flipped = bytearray(raw)
        flipped[place] ^= 1 << random.integers(8)
        path.write_bytes(flipped)
        try:
            assert equal(checkpoint.read(run), good)
        except UserError:
            refused += 1
    assert refused > 10


def test_a_file_that_the_system_cannot_give_is_not_called_damaged(run, monkeypatch):
    # --overwrite would destroy what a mended disk or permission gives back.
    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(zipfile, "ZipFile", fail)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        checkpoint.read(run)


def test_failed_write_leaves_the_last_one(run, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*checkpoint\.pt"):
        checkpoint.save(run, trained(), 3, SETTINGS)
    assert checkpoint.read(run)["epoch"] == 2
    assert [path.name for path in run.iterdir()] == ["checkpoint.pt"]
