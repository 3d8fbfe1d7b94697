"""dataset/sources.py: folders of images and CIFAR-10, as they are and damaged."""

import hashlib
import io
import pickle
import sys
import tarfile
import types

import numpy as np
import pytest
from helpers import make_image_folder
from PIL import Image

from dataset.data_file import read_dataset
from dataset.sources import CIFAR10_MD5


def test_a_folder_of_images(script, workplace):
    folder = make_image_folder(workplace / "photos")
    (folder / "train/.DS_Store").write_text("hidden files are skipped")
    (folder / "train/ant/.thumbs").write_text("these too")
    assert script("generate", "--dataset", folder, "--noise", "symmetric", "--rate", "0.5")[0] == 0
    dataset = read_dataset("data/photos-symmetric50.npz")
    assert dataset.class_names == ["ant", "bee"] and dataset.train_images.shape == (6, 8, 9, 3)
    assert dataset.clean_labels.tolist() == dataset.test_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.sum(dataset.train_labels != dataset.clean_labels) == 3
    with Image.open(folder / "test/bee/1.png") as image:
        np.testing.assert_array_equal(dataset.test_images[4], np.asarray(image))


def test_gray_images_become_rgb(script, workplace):
    folder = make_image_folder(workplace / "gray", mode="L")
    assert script("generate", "--dataset", folder, "--out", "out.npz")[0] == 0
    images = read_dataset("out.npz").train_images
    assert np.array_equal(images[..., 0], images[..., 2]) and images.std() > 0


def test_a_subset_of_a_folder(script, workplace):
    folder = make_image_folder(workplace / "photos", count=5)
    flags = ["--train-size", 4, "--test-size", 6, "--title", "Photographs"]
    assert script("generate", "--dataset", folder, *flags)[0] == 0
    dataset = read_dataset("data/photos-pair40.npz")
    assert np.bincount(dataset.clean_labels).tolist() == [2, 2] and len(dataset.test_labels) == 6
    assert dataset.meta["title"] == "Photographs" and dataset.meta["source"] == "photos"


def test_more_images_than_there_are(refused, workplace):
    folder = make_image_folder(workplace / "photos")
    for flag in ("--train-size", "--test-size"):
        assert flag in refused("generate", "--dataset", folder, flag, 7)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:80])


def resize_test_images(folder):
    for path in folder.glob("test/*/*"):
        Image.new("RGB", (5, 5)).save(path)


def add_empty_class(folder):
    for split in ("train", "test"):
        (folder / split / "cat").mkdir()


# What is wrong with the folder: how it is made so, and words of the message.
DAMAGES = {
    "no train": (lambda folder: (folder / "train").rename(folder / "x"), ["no folder train/"]),
    "other classes": (
        lambda folder: (folder / "test/bee").rename(folder / "test/wasp"),
        ["same", "wasp"],
    ),
    "mixed sizes": (
        lambda folder: Image.new("RGB", (5, 5)).save(folder / "test/bee/2.png"),
        ["2.png", "5x5", "9x8", "one size"],
    ),
    "two sizes": (resize_test_images, ["test/ant/0.png", "5x5", "9x8", "one size"]),
    "no image": (
        lambda folder: (folder / "train/bee/notes.txt").write_text("no image"),
        ["notes.txt", "not a readable image"],
    ),
    "cut short": (
        lambda folder: cut_short(folder / "train/bee/1.png"),
        ["1.png", "not a readable image"],
    ),
    "too large": (
        lambda folder: Image.new("RGB", (65, 8)).save(folder / "train/ant/0.png"),
        ["0.png", "64"],
    ),
    "empty class": (add_empty_class, ["train/cat"]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_bad_folder_is_refused(refused, workplace, name):
    folder, (damage, words) = make_image_folder(workplace / "photos"), DAMAGES[name]
    damage(folder)
    message = refused("generate", "--dataset", folder)
    assert all(word in message for word in words)
    assert [path.name for path in (workplace / "data").iterdir()] == ["small.npz"]


# --- CIFAR-10 ---


@pytest.fixture
def replace_torchvision(monkeypatch):
    """Put another module, or None for no module, in the place of torchvision.datasets."""

    def replace(module):
        package = module and types.ModuleType("torchvision")
        monkeypatch.setitem(sys.modules, "torchvision", package)
        monkeypatch.setitem(sys.modules, "torchvision.datasets", module)

    return replace


def test_without_torchvision_shapes_work_and_cifar10_says_why(
    script, refused, workplace, replace_torchvision
):
    replace_torchvision(None)
    assert "torchvision" in refused("generate", "--dataset", "cifar10")
    assert script("generate", "--dataset", "shapes", "--train-size", 20)[0] == 0


def test_a_mismatched_pair_of_torch_and_torchvision_is_named(
    refused, workplace, replace_torchvision
):
    class Mismatched(types.ModuleType):
        def __getattr__(self, name):
            raise RuntimeError("operator torchvision::nms does not exist")

    replace_torchvision(Mismatched("torchvision.datasets"))
    message = refused("generate", "--dataset", "cifar10")
    assert "torchvision::nms" in message and "pair" in message


def test_a_failed_download_says_where_to_put_the_archive(refused, workplace, replace_torchvision):
    def fail(*args, **kwargs):
        raise OSError("no network")

    module = types.ModuleType("torchvision.datasets")
    module.CIFAR10 = fail
    replace_torchvision(module)
    message = refused("generate", "--dataset", "cifar10", "--data-dir", "archive")
    assert str(workplace / "archive") in message and "cifar-10-python.tar.gz" in message
    assert "c58f30108f718f92721af3b95e74349a" in message


def make_archive(path):
    """A small archive laid out like CIFAR-10's: (its content, the md5 of each of its files)."""
    random = np.random.default_rng(0)
    content = {
        name: {"data": random.integers(0, 256, (20, 3072), np.uint8), "labels": [*range(10)] * 2}
        for name in [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
    }
    content["batches.meta"] = {"label_names": [f"class {k}" for k in range(10)]}
    files = {name: pickle.dumps(value) for name, value in content.items()}
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as file:
        for name, raw in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(raw)
            file.addfile(entry, io.BytesIO(raw))
    return content, {name: hashlib.md5(raw).hexdigest() for name, raw in files.items()}


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small archive that torchvision is told to accept: (its path, its content)."""
    datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")
    path = tmp_path / "archive/cifar-10-python.tar.gz"
    content, md5 = make_archive(path)
    assert datasets.CIFAR10.tgz_md5 == CIFAR10_MD5
    train = [[name, md5[name]] for name in content if name.startswith("data_batch")]
    for name, value in {
        "meta": {**datasets.CIFAR10.meta, "md5": md5["batches.meta"]},
        "train_list": train,
        "test_list": [["test_batch", md5["test_batch"]]],
        "tgz_md5": hashlib.md5(path.read_bytes()).hexdigest(),
        "url": "http://127.0.0.1:9/cifar-10-python.tar.gz",  # nobody answers there
    }.items():
        monkeypatch.setattr(datasets.CIFAR10, name, value)
    return path, content


def test_an_archive_on_disk_is_used_without_the_network(script, workplace, archive):
    path, content = archive
    flags = ["--dataset", "cifar10", "--data-dir", path.parent]
    assert script("generate", *flags)[0] == 0
    dataset = read_dataset("data/cifar10-pair40.npz")
    pixels = np.concatenate([content[f"data_batch_{k}"]["data"] for k in range(1, 6)])
    channels_first = dataset.train_images.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(channels_first.reshape(100, -1), pixels)
    assert np.sum(dataset.train_labels != dataset.clean_labels) == 40
    assert dataset.test_labels.tolist() == content["test_batch"]["labels"]
    # The unpacked folder alone serves as well.
    path.unlink()
    first = (workplace / "data/cifar10-pair40.npz").read_bytes()
    assert script("generate", *flags)[0] == 0
    assert (workplace / "data/cifar10-pair40.npz").read_bytes() == first


def test_a_changed_archive_is_not_unpickled(refused, workplace, archive):
    path, _ = archive
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    message = refused("generate", "--dataset", "cifar10", "--data-dir", path.parent)
    assert str(path.parent) in message and not (path.parent / "cifar-10-batches-py").exists()
