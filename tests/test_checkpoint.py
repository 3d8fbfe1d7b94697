"""checkpoint.py: round trip, every kind of damage, the checkpoint before the last."""

import json
import os
import pickle
import random

import pytest
import torch
from torch import nn

import checkpoint
import runs

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


def test_a_kill_between_keeping_and_replacing(run):
    # The previous one is then the same file as the last one.
    checkpoint._keep(run / checkpoint.NAME, run / checkpoint.PREVIOUS)
    checkpoint.save(run, *network(), 3, SETTINGS, None)
    assert checkpoint.read(run, "cpu")["epoch"] == 3
    assert checkpoint.read(run, "cpu", checkpoint.PREVIOUS)["epoch"] == 2
    assert {path.name for path in run.iterdir()} == {checkpoint.NAME, checkpoint.PREVIOUS}


def test_without_links_the_previous_one_is_a_copy(run, monkeypatch):
    def refuse(*names):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    checkpoint.save(run, *network(), 3, SETTINGS, None)
    assert checkpoint.read(run, "cpu")["epoch"] == 3
    assert checkpoint.read(run, "cpu", checkpoint.PREVIOUS)["epoch"] == 2


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def damage(path, kind):
    raw = path.read_bytes()
    good = torch.load(path, weights_only=True)
    if kind == "torch bomb":
        torch.save({**good, "model": Bomb()}, path)
    elif kind == "old bomb":
        torch.save({**good, "model": Bomb()}, path, _use_new_zipfile_serialization=False)
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "other format":
        torch.save({**good, "format": 1}, path)
    else:
        parts = {
            "bomb": pickle.dumps(Bomb(), protocol=2),
            "truncated": raw[: len(raw) // 2],
            "last byte missing": raw[:-1],
            "empty": b"",
            "zeros": bytes(len(raw)),
            "zeros within": raw[: len(raw) // 3] + bytes(200) + raw[len(raw) // 3 + 200 :],
            "text": b"hello",
        }
        path.write_bytes(parts[kind])


KINDS = ["bomb", "torch bomb", "old bomb", "truncated", "last byte missing", "empty", "zeros"]
KINDS += ["zeros within", "text", "list", "other format"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_checkpoint_is_refused_and_never_executed(run, monkeypatch, kind):
    monkeypatch.chdir(run)
    path = run / checkpoint.NAME
    # The previous one shares no bytes with it that this would change.
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    damage(path, kind)
    with pytest.raises(runs.RunError) as error:
        checkpoint.read(run, "cpu")
    message = str(error.value)
    assert str(path) in message and "\n" not in message and not (run / "executed").exists()
    # The one before it is offered, and what is offered works.
    assert f"epoch 1 with: mv {run / checkpoint.PREVIOUS} {path}, then --resume" in message
    os.replace(run / checkpoint.PREVIOUS, path)
    assert checkpoint.read(run, "cpu")["epoch"] == 1
    damage(path, kind)
    with pytest.raises(runs.RunError, match="--overwrite"):
        checkpoint.read(run, "cpu")


def test_a_flipped_bit_is_found_or_changes_nothing(run):
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
        except runs.RunError:
            refused += 1
    assert refused > 40


def test_another_networks_is_refused(run):
    model, optimizer = network(width=6)
    with pytest.raises(runs.RunError, match="another network's"):
        checkpoint.load(run, model, optimizer, SETTINGS, "cpu")


def test_other_settings_are_refused(run):
    with pytest.raises(runs.RunError, match=r"lr = 0\.1, not 0\.2"):
        checkpoint.load(run, *network(), {**SETTINGS, "lr": 0.2}, "cpu")


def test_a_failed_write_leaves_the_last_one(run, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(run, *network(), 3, SETTINGS, None)
    assert checkpoint.read(run, "cpu")["epoch"] == 2
    assert {path.name for path in run.iterdir()} == {checkpoint.NAME, checkpoint.PREVIOUS}


def test_checkpoint_holds_tensors_and_plain_values_only(trained):
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

    for run in runs.find_runs([trained / "runs"]):
        content = checkpoint.read(run, "cpu")
        walk({k: dict(v) if k == "model" else v for k, v in content.items()})
        assert json.dumps(content["settings"])
