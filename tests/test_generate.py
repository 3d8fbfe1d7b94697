"""generate.py: subsets, the three sources, the command line and its refusals."""

import hashlib
import io
import pickle
import sys
import tarfile
import types

import numpy as np
import pytest
from conftest import make_folder
from PIL import Image

import data
import generate
import label_noise


def test_shapes_end_to_end(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = ["--dataset", "shapes", "--rate", "0.3", "--train-size", 50, "--test-size", 20]
    status, out, err = script("generate", *flags)
    assert status == 0 and err == ""
    path = tmp_path / "data/shapes-pair30.npz"
    dataset = data.read_dataset(path)
    digest = hashlib.sha256(dataset.train_labels.tobytes()).hexdigest()
    assert "15 of 50 training labels are wrong, rate 0.3" in out
    assert f"train_labels: {digest}" in out and "data/shapes-pair30.npz" in out
    assert all(name in out for name in dataset.class_names)
    assert np.sum(dataset.train_labels != dataset.clean_labels) == 15
    assert np.bincount(dataset.test_labels).tolist() == [2] * 10
    first = path.read_bytes()
    assert script("generate", *flags)[0] == 0 and path.read_bytes() == first


def test_counts_printed_are_true_against_given(script, workplace):
    _, out, _ = script("generate", "--dataset", "shapes", "--train-size", 40, "--rate", "1")
    table = [line.split()[-10:] for line in out.splitlines() if line[:4].strip().isdigit()][:10]
    expected = np.roll(np.eye(10, dtype=int) * 4, 1, axis=1)
    np.testing.assert_array_equal(np.array(table, int), expected)


def test_no_noise_says_so_in_the_name(script, workplace):
    assert script("generate", "--dataset", "shapes", "--noise", "none", "--train-size", 20)[0] == 0
    dataset = data.read_dataset("data/shapes-none0.npz")
    assert np.array_equal(dataset.train_labels, dataset.clean_labels)


def test_validation_images_are_held_out_with_wrong_labels(script, workplace):
    flags = ["--dataset", "shapes", "--train-size", 100, "--val-size", 30, "--out"]
    status, out, _ = script("generate", *flags, "a.npz")
    assert status == 0 and "70 training, 30 validation" in out
    part = data.read_dataset("a.npz")
    assert script("generate", *flags[:4], "--out", "whole.npz")[0] == 0
    whole = data.read_dataset("whole.npz")
    held_out = [image.tobytes() for image in part.val_images]
    kept = [image.tobytes() for image in part.train_images]
    assert len(held_out) == 30 and len(kept) == 70
    assert sorted(held_out + kept) == sorted(image.tobytes() for image in whole.train_images)
    true = dict(zip([i.tobytes() for i in whole.train_images], whole.clean_labels, strict=True))
    wrong = [given != true[i] for i, given in zip(held_out, part.val_labels, strict=True)]
    assert sum(wrong) == 12 and part.meta["val_rate_found"] == 0.4
    assert np.sum(part.train_labels != part.clean_labels) == 28
    assert part.clean_labels.tolist() == [true[image] for image in kept]
    assert part.meta["val_size"] == 30 and part.meta["train_size"] == 70


def test_labels_from_a_file_follow_their_images(script, workplace):
    flags = ["--dataset", "shapes", "--train-size", 60, "--out"]
    script("generate", *flags, "whole.npz", "--noise", "none")
    whole = data.read_dataset("whole.npz")
    given = np.random.default_rng(0).integers(0, 10, 60)
    np.save("mine.npy", given)
    status, out, _ = script("generate", *flags[:-1], "--noise", "mine.npy", "--val-size", 20)
    part = data.read_dataset("data/shapes-mine.npz")
    label = dict(zip([i.tobytes() for i in whole.train_images], given, strict=True))
    for images, labels in (
        (part.train_images, part.train_labels),
        (part.val_images, part.val_labels),
    ):
        assert labels.tolist() == [label[image.tobytes()] for image in images]
    wrong = int(np.sum(part.train_labels != part.clean_labels))
    assert status == 0 and f"{wrong} of 40 training labels are wrong" in out
    assert part.meta["noise"] == "mine" and part.meta["rate_asked"] is None
    assert part.meta["rate_found"] == wrong / 40
    table = np.zeros((10, 10), int)
    for true, now in zip(part.clean_labels, part.train_labels, strict=True):
        table[true, now] += 1
    assert part.meta["transitions"] == table.tolist()


def test_asymmetric_noise_says_what_its_rate_means(script, workplace):
    folder = make_folder(workplace / "photos", count=10, classes=label_noise.CIFAR10_CLASSES)
    status, out, _ = script("generate", "--dataset", folder, "--noise", "asymmetric")
    assert status == 0 and "20 of 100 training labels are wrong, rate 0.2" in out
    assert "0.4, is of the images of the five classes" in out


def test_folder_of_images(script, workplace):
    folder = make_folder(workplace / "photos")
    (folder / "train/.DS_Store").write_text("hidden files are passed over")
    (folder / "train/ant/.thumbs").write_text("here too")
    assert script("generate", "--dataset", folder, "--noise", "symmetric", "--rate", "0.5")[0] == 0
    dataset = data.read_dataset("data/photos-symmetric50.npz")
    assert dataset.class_names == ["ant", "bee"] and dataset.train_images.shape == (6, 8, 9, 3)
    assert dataset.clean_labels.tolist() == dataset.test_labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert np.sum(dataset.train_labels != dataset.clean_labels) == 3
    with Image.open(folder / "test/bee/1.png") as image:
        np.testing.assert_array_equal(dataset.test_images[4], np.asarray(image))


def test_grey_images_become_rgb(script, workplace):
    folder = make_folder(workplace / "grey", mode="L")
    assert script("generate", "--dataset", folder, "--out", "out.npz")[0] == 0
    images = data.read_dataset("out.npz").train_images
    assert np.array_equal(images[..., 0], images[..., 2]) and images.std() > 0


def test_subset_of_a_folder(script, workplace):
    folder = make_folder(workplace / "photos", count=5)
    flags = ["--train-size", 4, "--test-size", 6, "--title", "Photographs"]
    assert script("generate", "--dataset", folder, *flags)[0] == 0
    dataset = data.read_dataset("data/photos-pair40.npz")
    assert np.bincount(dataset.clean_labels).tolist() == [2, 2] and len(dataset.test_labels) == 6
    assert dataset.meta["title"] == "Photographs" and dataset.meta["source"] == "photos"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rate", "1.1"], ["--rate", "0 to 1"]),
        (["--rate", "-0.1"], ["--rate"]),
        (["--rate", "nan"], ["--rate"]),
        (["--rate", "much"], ["--rate", "much"]),
        (["--noise", "purple"], ["--noise", "purple", "symmetric"]),
        (["--noise", "asymmetric"], ["--noise", "asymmetric", "CIFAR-10"]),
        (["--labels", "worse_label"], ["--labels", "--noise"]),
        (["--val-size", "-1"], ["--val-size"]),
        (["--val-size", "2000"], ["--val-size", "train"]),
        (["--val-size", "2001"], ["--val-size"]),
        (["--train-size", "0"], ["--train-size"]),
        (["--seed", "-1"], ["--seed"]),
        (["--dataset", "nowhere"], ["nowhere", "shapes"]),
    ],
)
def test_wrong_flags_are_refused(refused, workplace, flags, words):
    before = sorted(workplace.rglob("*"))
    message = refused("generate", "--dataset", "shapes", *flags)
    assert all(word in message for word in words)
    assert sorted(workplace.rglob("*")) == before


def spoil(folder, name):
    if name == "no train":
        (folder / "train").rename(folder / "training")
    elif name == "other classes":
        (folder / "test/bee").rename(folder / "test/wasp")
    elif name == "mixed sizes":
        Image.new("RGB", (5, 5)).save(folder / "test/bee/2.png")
    elif name == "no image":
        (folder / "train/bee/notes.txt").write_text("no image")
    elif name == "cut short":
        path = folder / "train/bee/1.png"
        path.write_bytes(path.read_bytes()[:80])
    elif name == "too large":
        Image.new("RGB", (65, 8)).save(folder / "train/ant/0.png")
    elif name == "empty class":
        for part in ("train", "test"):
            (folder / part / "cat").mkdir()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no train", ["no folder train/"]),
        ("other classes", ["same", "wasp"]),
        ("mixed sizes", ["2.png", "one size"]),
        ("no image", ["notes.txt", "not a readable image"]),
        ("cut short", ["1.png", "not a readable image"]),
        ("too large", ["0.png", "64"]),
        ("empty class", ["train/cat"]),
    ],
)
def test_a_bad_folder_is_refused(refused, workplace, name, words):
    folder = make_folder(workplace / "photos")
    spoil(folder, name)
    message = refused("generate", "--dataset", folder)
    assert all(word in message for word in words)
    assert [p.name for p in (workplace / "data").iterdir()] == ["small.npz"]


def test_more_images_than_there_are(refused, workplace):
    folder = make_folder(workplace / "photos")
    for flag in ("--train-size", "--test-size"):
        assert flag in refused("generate", "--dataset", folder, flag, 7)


def test_a_good_file_survives_a_refusal(script, refused, workplace):
    assert script("generate", "--dataset", "shapes", "--train-size", 20, "--out", "a.npz")[0] == 0
    before = (workplace / "a.npz").read_bytes()
    refused("generate", "--dataset", "nowhere", "--out", "a.npz")
    assert (workplace / "a.npz").read_bytes() == before


# --- CIFAR-10 ---


def test_without_torchvision_shapes_work_and_cifar10_says_why(
    script, refused, workplace, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    assert "torchvision" in refused("generate", "--dataset", "cifar10")
    assert script("generate", "--dataset", "shapes", "--train-size", 20)[0] == 0


def test_a_mismatched_pair_of_torch_and_torchvision_says_so(refused, workplace, monkeypatch):
    class Broken(types.ModuleType):
        def __getattr__(self, name):
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", Broken("torchvision.datasets"))
    message = refused("generate", "--dataset", "cifar10")
    assert "torchvision::nms" in message and "pair" in message


def test_a_failed_download_says_where_to_put_the_archive(refused, workplace, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network")

    module = types.ModuleType("torchvision.datasets")
    module.CIFAR10 = fail
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", module)
    message = refused("generate", "--dataset", "cifar10", "--data-dir", "archive")
    assert str(workplace / "archive") in message and "cifar-10-python.tar.gz" in message
    assert "c58f30108f718f92721af3b95e74349a" in message


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """A small archive laid out like CIFAR-10's, which torchvision is told to accept."""
    datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")
    random = np.random.default_rng(0)
    names = [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]
    content = {
        name: {"data": random.integers(0, 256, (20, 3072), np.uint8), "labels": [*range(10)] * 2}
        for name in names
    }
    content["batches.meta"] = {"label_names": [f"class {k}" for k in range(10)]}
    files = {name: pickle.dumps(value) for name, value in content.items()}
    path = tmp_path / "archive/cifar-10-python.tar.gz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as file:
        for name, raw in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(raw)
            file.addfile(entry, io.BytesIO(raw))
    md5 = {name: hashlib.md5(raw).hexdigest() for name, raw in files.items()}
    meta = {**datasets.CIFAR10.meta, "md5": md5["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[n, md5[n]] for n in names[:5]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    of_archive = hashlib.md5(path.read_bytes()).hexdigest()
    assert datasets.CIFAR10.tgz_md5 == generate.CIFAR10_MD5
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", of_archive)
    monkeypatch.setattr(datasets.CIFAR10, "url", "http://127.0.0.1:9/" + path.name)
    return path, content


def test_an_archive_on_disk_is_used_without_the_network(script, workplace, archive):
    path, content = archive
    flags = ["--dataset", "cifar10", "--data-dir", path.parent]
    assert script("generate", *flags)[0] == 0
    dataset = data.read_dataset("data/cifar10-pair40.npz")
    raw = np.concatenate([content[f"data_batch_{k}"]["data"] for k in range(1, 6)])
    np.testing.assert_array_equal(dataset.train_images.transpose(0, 3, 1, 2).reshape(100, -1), raw)
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
