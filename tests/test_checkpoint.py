"""training/checkpoint.py: round trip, every kind of damage, the checkpoint before the last."""

import io
import json
import os
import pickle
import random

import pytest
import torch
from torch import nn

from common import run_folder
from common.errors import UserError
from training import checkpoint

SETTINGS = {"lr": 0.1, "augment": True, "weight": None}


def network(width=5):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)
    model(torch.randn(8, 4)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.fixture
def run(tmp_path):
    """A run's folder with the checkpoints of epochs 1 and 2."""
    for epoch in (1, 2):
        checkpoint.save(tmp_path, *network(), epoch, SETTINGS, torch.arange(epoch))
    return tmp_path


def equal(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    return a == b


def test_round_trip(run):
    model, optimizer = network()
    trained = {k: v.clone() for k, v in model.state_dict().items()}
    momentum = optimizer.state_dict()["state"]
    other, fresh = network()
    with torch.no_grad():
        for tensor in other.state_dict().values():
            tensor.zero_()
    fresh = torch.optim.SGD(other.parameters(), 0.1, 0.9)
    epoch, previous = checkpoint.load(run, other, fresh, SETTINGS, "cpu")
    assert epoch == 2 and torch.equal(previous, torch.arange(2))
    assert equal(dict(other.state_dict()), trained)
    assert equal(fresh.state_dict()["state"], momentum)
    assert checkpoint.read(run, "cpu", checkpoint.PREVIOUS)["epoch"] == 1
    assert {path.name for path in run.iterdir()} == {checkpoint.NAME, checkpoint.PREVIOUS}


def test_kill_between_keeping_and_replacing(run):
    # The one before the last is then another name of the last.
    (run / checkpoint.PREVIOUS).unlink()
    os.link(run / checkpoint.NAME, run / checkpoint.PREVIOUS)
    checkpoint.save(run, *network(), 3, SETTINGS, None)
    assert checkpoint.read(run, "cpu")["epoch"] == 3
    assert checkpoint.read(run, "cpu", checkpoint.PREVIOUS)["epoch"] == 2
    assert {path.name for path in run.iterdir()} == {checkpoint.NAME, checkpoint.PREVIOUS}


def test_without_links_the_one_before_is_a_copy(run, monkeypatch):
    def refuse(*names):
        raise OSError("no links")

    monkeypatch.setattr(os, "link", refuse)
    checkpoint.save(run, *network(), 3, SETTINGS, None)
    assert checkpoint.read(run, "cpu")["epoch"] == 3
    assert checkpoint.read(run, "cpu", checkpoint.PREVIOUS)["epoch"] == 2


class Bomb:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


# What happens to a checkpoint: from its content and its bytes to its new bytes.


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


DAMAGE = {
    "bomb": lambda content, raw: pickle.dumps(Bomb(), protocol=2),
    "torch bomb": lambda content, raw: saved({**content, "model": Bomb()}),
    "old bomb": lambda content, raw: saved(
        {**content, "model": Bomb()}, _use_new_zipfile_serialization=False
    ),
    "list": lambda content, raw: saved([1, 2]),
    "other format": lambda content, raw: saved({**content, "format": 1}),
    "truncated": lambda content, raw: raw[: len(raw) // 2],
    "last byte missing": lambda content, raw: raw[:-1],
    "empty": lambda content, raw: b"",
    "zeros": lambda content, raw: bytes(len(raw)),
    "zeros within": lambda content, raw: (
        raw[: len(raw) // 3] + bytes(200) + raw[len(raw) // 3 + 200 :]
    ),
    "text": lambda content, raw: b"hello",
}


def replace_content(path, damage):
    """Damage a file, but not the other names of it."""
    content, raw = torch.load(path, weights_only=True), path.read_bytes()
    path.unlink()
    path.write_bytes(DAMAGE[damage](content, raw))


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoint_is_refused_and_never_executed(run, monkeypatch, damage):
    monkeypatch.chdir(run)
    path = run / checkpoint.NAME
    replace_content(path, damage)
    with pytest.raises(UserError) as error:
        checkpoint.read(run, "cpu")
    message = str(error.value)
    assert str(path) in message and "\n" not in message and not (run / "executed").exists()
    # The one before it is offered, and what is offered works.
    assert "epoch 1, rename checkpoint.prev.pt to checkpoint.pt, then --resume" in message
    os.replace(run / checkpoint.PREVIOUS, path)
    assert checkpoint.read(run, "cpu")["epoch"] == 1
    replace_content(path, damage)
    with pytest.raises(UserError, match="--overwrite"):
        checkpoint.read(run, "cpu")
    assert not (run / "executed").exists()


@pytest.mark.slow
def test_flipped_bit_is_noticed_or_changes_nothing(run):
    path = run / checkpoint.NAME
    raw, good = path.read_bytes(), checkpoint.read(run, "cpu")
    (run / checkpoint.PREVIOUS).unlink()
    draw = random.Random(0)
    refused = 0
    for place in draw.sample(range(len(raw)), 400):
        flipped = bytearray(raw)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            assert equal(checkpoint.read(run, "cpu"), good)
        except UserError:
            refused += 1
    assert refused > 40


def test_checkpoint_of_another_network_is_refused(run):
    model, optimizer = network(width=6)
    with pytest.raises(UserError, match="another network"):
        checkpoint.load(run, model, optimizer, SETTINGS, "cpu")


def test_other_settings_are_refused(run):
    with pytest.raises(UserError, match=r"lr = 0\.1, not 0\.2"):
        checkpoint.load(run, *network(), {**SETTINGS, "lr": 0.2}, "cpu")


def test_setting_that_was_added_later_is_accepted(run):
    epoch, _ = checkpoint.load(run, *network(), {**SETTINGS, "added": None}, "cpu")
    assert epoch == 2


def test_failed_write_leaves_the_last_one(run, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(run, *network(), 3, SETTINGS, None)
    assert checkpoint.read(run, "cpu")["epoch"] == 2
    assert {path.name for path in run.iterdir()} == {checkpoint.NAME, checkpoint.PREVIOUS}


def test_checkpoint_holds_tensors_and_plain_values_only(trained_study):
    def walk(value):
        if isinstance(value, dict):
            for key, item in value.items():
                assert type(key) in (str, int)
                walk(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                walk(item)
        else:
            assert type(value) in (torch.Tensor, int, float, str, bool, type(None)), type(value)

    for run in run_folder.find_runs([trained_study / "runs"]):
        content = checkpoint.read(run, "cpu")
        walk({k: dict(v) if k == "model" else v for k, v in content.items()})
        assert json.dumps(content["settings"])
