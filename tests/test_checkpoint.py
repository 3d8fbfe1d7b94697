"""training/checkpoint.py: round trip, every kind of damage, other networks and settings."""

import errno
import io
import json
import os
import pickle
import random
import zipfile

import pytest
import torch
from helpers import equal
from torch import nn
from torch.optim.swa_utils import AveragedModel

from common import run_folder
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


# What happens to a checkpoint: from its content and its bytes to its new bytes.


class Bomb:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def zeros_within(content, raw):
    third = len(raw) // 3
    return raw[:third] + bytes(200) + raw[third + 200 :]


DAMAGE = {
    "bomb": lambda content, raw: pickle.dumps(Bomb(), protocol=2),
    "torch bomb": lambda content, raw: saved({**content, "model": Bomb()}),
    "old bomb": lambda content, raw: saved(
        {**content, "model": Bomb()}, _use_new_zipfile_serialization=False
    ),
    "list": lambda content, raw: saved([1, 2]),
    "other format": lambda content, raw: saved({**content, "format": 1}),
    "no epoch": lambda content, raw: saved({k: v for k, v in content.items() if k != "epoch"}),
    "epoch as text": lambda content, raw: saved({**content, "epoch": "2"}),
    "no settings": lambda content, raw: saved({**content, "settings": None}),
    "truncated": lambda content, raw: raw[: len(raw) // 2],
    "last byte missing": lambda content, raw: raw[:-1],
    "empty": lambda content, raw: b"",
    "zeros": lambda content, raw: bytes(len(raw)),
    "zeros within": zeros_within,
    "text": lambda content, raw: b"hello",
    "another archive": lambda content, raw: b"PK\x05\x06" + bytes(18),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoint_is_refused_and_never_executed(run, monkeypatch, damage):
    monkeypatch.chdir(run)
    path = run / "checkpoint.pt"
    path.write_bytes(DAMAGE[damage](checkpoint.read(run), path.read_bytes()))
    with pytest.raises(UserError) as error:
        checkpoint.read(run)
    message = str(error.value)
    assert f"{path} is damaged" in message and "--overwrite" in message and "--run" in message
    assert not (run / "executed").exists()


def test_flipped_bit_is_noticed_or_changes_nothing(run):
    path = run / "checkpoint.pt"
    raw, good = path.read_bytes(), checkpoint.read(run)
    draw, refused = random.Random(0), 0
    for place in draw.sample(range(len(raw)), 100):
        flipped = bytearray(raw)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            assert equal(checkpoint.read(run), good)
        except UserError:
            refused += 1
    assert refused > 10


def without(content, *path):
    """The content without the entry that the path of keys leads to."""
    *parents, last = path
    for key in parents:
        content = content[key]
    del content[last]


OTHER = {
    "of another width": lambda content: None,
    "without a parameter": lambda content: without(content, "model", "0.weight"),
    "without a group": lambda content: without(content, "optimizer", "param_groups", 0),
    "without the average": lambda content: content.update(average=None),
    "with a number as average": lambda content: content.update(average=3),
    "without the model": lambda content: without(content, "model"),
    "without the memory": lambda content: without(content, "previous"),
    "with a text as memory": lambda content: content.update(previous="x"),
}


@pytest.mark.parametrize("change", OTHER)
def test_checkpoint_of_another_network_is_refused(run, change):
    content = checkpoint.read(run)
    OTHER[change](content)
    (run / "checkpoint.pt").write_bytes(saved(content))
    with pytest.raises(UserError, match=r"is of another network; .*--run"):
        checkpoint.load(run, trained(width=6 if change == "of another width" else 5), SETTINGS, CPU)


def test_other_settings_are_refused(run):
    with pytest.raises(UserError, match=r"started with lr = 0\.1, not 0\.2; use its flag"):
        checkpoint.load(run, trained(), {**SETTINGS, "lr": 0.2}, CPU)
    with pytest.raises(UserError, match="another data set than that of --data"):
        checkpoint.load(run, trained(), {**SETTINGS, "data_sha256": "x"}, CPU)
    # A setting that was added later has its default where it is None.
    assert checkpoint.load(run, trained(), {**SETTINGS, "added": None}, CPU) == 2


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_a_file_that_the_system_cannot_give_is_not_called_damaged(run, monkeypatch, number):
    # --overwrite would destroy what a mended disk or permission gives back.
    def fail(path):
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(zipfile, "ZipFile", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        checkpoint.read(run)


def test_failed_write_leaves_the_last_one(run, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*checkpoint\.pt"):
        checkpoint.save(run, trained(), 3, SETTINGS)
    assert checkpoint.read(run)["epoch"] == 2
    assert [path.name for path in run.iterdir()] == ["checkpoint.pt"]


def test_checkpoints_hold_tensors_and_plain_values_only(trained_study):
    def walk(value):
        if isinstance(value, dict):
            for key, item in value.items():
                assert type(key) in (str, int)
                walk(item)
        elif isinstance(value, list | tuple):
            for item in value:
                walk(item)
        else:
            assert type(value) in (torch.Tensor, int, float, str, bool, type(None)), type(value)

    for run in run_folder.find_runs([trained_study / "runs"]):
        content = checkpoint.read(run)
        walk({key: dict(value) if key == "model" else value for key, value in content.items()})
        assert json.dumps(content["settings"])
