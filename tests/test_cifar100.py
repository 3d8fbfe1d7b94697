"""CIFAR-100: read through torchvision with its md5 checks, and 100 classes down to the figures."""

import hashlib
import io
import pickle
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest
from helpers import SMALL_RUN, make_dataset

from dataset.data_file import read_dataset, write_dataset
from dataset.sources import CIFAR100_MD5

NAMES = [f"class {label}" for label in range(100)]


def make_archive(path):
    """A small archive laid out like CIFAR-100's: (its content, the md5 of each of its files)."""
    random = np.random.default_rng(0)
    labels = [*range(100)] * 2
    content = {
        name: {
            "data": random.integers(0, 256, (200, 3072), np.uint8),
            "fine_labels": labels,
            "coarse_labels": [label // 5 for label in labels],
        }
        for name in ("train", "test")
    }
    superclasses = [f"superclass {k}" for k in range(20)]
    content["meta"] = {"fine_label_names": NAMES, "coarse_label_names": superclasses}
    files = {name: pickle.dumps(value) for name, value in content.items()}
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as file:
        for name, raw in files.items():
            entry = tarfile.TarInfo(f"cifar-100-python/{name}")
            entry.size = len(raw)
            file.addfile(entry, io.BytesIO(raw))
    return content, {name: hashlib.md5(raw).hexdigest() for name, raw in files.items()}


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small archive that torchvision is told to accept: (its path, its content)."""
    datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")
    path = tmp_path / "archive/cifar-100-python.tar.gz"
    content, md5 = make_archive(path)
    assert datasets.CIFAR100.tgz_md5 == CIFAR100_MD5
    for name, value in {
        "meta": {**datasets.CIFAR100.meta, "md5": md5["meta"]},
        "train_list": [["train", md5["train"]]],
        "test_list": [["test", md5["test"]]],
        "tgz_md5": hashlib.md5(path.read_bytes()).hexdigest(),
        "url": "http://127.0.0.1:9/cifar-100-python.tar.gz",  # nobody answers there
    }.items():
        monkeypatch.setattr(datasets.CIFAR100, name, value)
    return path, content


def test_an_archive_with_pair_noise(script, workplace, archive):
    path, content = archive
    flags = ["--dataset", "cifar100", "--data-dir", path.parent]
    status, out, _ = script("generate", *flags)
    assert status == 0 and "100 classes, 200 training" in out
    dataset = read_dataset("data/cifar100-pair40.npz")
    channels_first = dataset.train_images.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(channels_first.reshape(200, -1), content["train"]["data"])
    assert dataset.clean_labels.tolist() == content["train"]["fine_labels"]
    assert dataset.test_labels.tolist() == content["test"]["fine_labels"]
    assert dataset.class_names == NAMES
    wrong = dataset.train_labels != dataset.clean_labels
    assert wrong.sum() == 80
    assert all(dataset.train_labels[wrong] == (dataset.clean_labels[wrong] + 1) % 100)


def test_the_largest_confusions_are_printed(script, workplace, archive):
    labels = np.arange(200) % 100
    labels[[7, 107]], labels[8] = 3, 9
    np.save("other.npy", labels)
    flags = ["--dataset", "cifar100", "--data-dir", archive[0].parent, "--noise", "other.npy"]
    status, out, _ = script("generate", *flags)
    assert status == 0 and max(map(len, out.splitlines())) <= 100
    lines = out.splitlines()[2:5]
    assert lines[0] == "the most frequent of 2 class pairs that are confused:"
    assert [line.split(maxsplit=1) for line in lines[1:]] == [
        ["2", "class 7 -> class 3"],
        ["1", "class 8 -> class 9"],
    ]


def test_a_changed_archive_is_not_unpickled(refused, workplace, archive):
    path, _ = archive
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    message = refused("generate", "--dataset", "cifar100", "--data-dir", path.parent)
    assert str(path.parent) in message and not (path.parent / "cifar-100-python").exists()


def test_asymmetric_noise_is_refused_with_the_reason(refused, workplace, archive):
    flags = ["--dataset", "cifar100", "--data-dir", archive[0].parent, "--noise", "asymmetric"]
    message = refused("generate", *flags)
    assert "CIFAR-10's classes only" in message and "pair or symmetric" in message


def test_a_failed_download_says_where_to_put_the_archive(refused, workplace, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network")

    module = types.ModuleType("torchvision.datasets")
    module.CIFAR100 = fail
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    message = refused("generate", "--dataset", "cifar100", "--data-dir", "archive")
    assert "CIFAR-100" in message and str(workplace / "archive") in message
    assert "cifar-100-python.tar.gz" in message and CIFAR100_MD5 in message


def test_without_torchvision_cifar100_says_why(refused, workplace, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    message = refused("generate", "--dataset", "cifar100")
    assert "--dataset cifar100 needs torchvision" in message


@pytest.mark.slow
def test_100_classes_to_the_figures(script, workplace):
    write_dataset(Path("data/small.npz"), make_dataset(train=400, test=200, val=100, classes=100))
    for flags in (["--dis=0"], ["--dis=1", "--teacher=previous-epochs", "--momentum=0.9"]):
        assert script("train", *SMALL_RUN, "--epochs=2", *flags)[0] == 0
    logits = np.load("runs/small/dis0-small_cnn-seed0/train_logits.npy", mmap_mode="r")
    assert logits.shape[1:] == (400, 100)
    for name in ("frequency", "collect_history", "plot"):
        status, _, err = script(name)
        assert status == 0 and (not err or "run spectrum.py" in err), err
    figures = {path.name for path in workplace.rglob("*.png")}
    assert {"accuracy.png", "loss.png", "frequency.png", "learned_parts.png"} <= figures
