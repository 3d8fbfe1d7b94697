"""generate.py: what is made, what is printed, what is exported, what is refused."""

import json
import os
import shutil

import numpy as np
import pytest
from helpers import ROOT, make_image_folder, start_python

from dataset.data_file import array_digests, read_dataset, read_meta
from dataset.noise import transition_counts

SHAPES = ["--dataset", "shapes"]
TINY = [*SHAPES, "--train-size", 20, "--test-size", 10]
FEW = [*SHAPES, "--train-size", 40, "--test-size", 20, "--val-size", 10]


def by_image(images, labels):
    """The labels (N,) by the images' bytes."""
    return dict(zip([image.tobytes() for image in images], labels.tolist(), strict=True))


def test_shapes_end_to_end(script, place):
    flags = [*SHAPES, "--rate", "0.3", "--train-size", 50, "--test-size", 20]
    status, out, err = script("generate", *flags)
    assert status == 0 and err == ""
    path = place / "data/shapes-pair30.npz"
    dataset = read_dataset(path)
    assert "15 of 50 training labels are wrong, noise rate 0.3" in out
    assert "0 training images are exact copies of another one" in out
    *_, written, hint, gpu, cpu = out.splitlines()
    assert written == "written: data/shapes-pair30.npz" and "add --val-size" in hint
    command = "python train.py --dis=0 --data data/shapes-pair30.npz"
    assert command in gpu and command in cpu
    assert np.bincount(dataset.test_labels).tolist() == [2] * 10
    clean, noisy = dataset.clean_labels, dataset.train_labels
    counts = transition_counts(clean, noisy, 10).tolist()
    assert np.sum(noisy != clean) == 15 and dataset.meta["transitions"] == counts
    first = path.read_bytes()
    assert script("generate", *flags)[0] == 0 and path.read_bytes() == first


def test_another_data_set_is_not_overwritten(script, refused, workplace):
    path = workplace / "data/shapes-pair40.npz"
    assert script("generate", *TINY)[0] == 0
    before = path.read_bytes()
    assert "name another file with --out" in refused(
        "generate", *TINY, "--seed", 1, "--export", "labels.json"
    )
    assert path.read_bytes() == before and not (workplace / "labels.json").exists()
    assert script("generate", *TINY)[0] == 0  # the same images, labels
    assert path.read_bytes() == before
    path.write_text("notes")
    for flags in ([], ["--if-missing"]):
        assert "not a data set" in refused("generate", *TINY, *flags)
    assert path.read_text() == "notes"


def test_no_noise_has_a_name_of_its_own(script, workplace):
    assert script("generate", *TINY, "--noise", "none")[0] == 0
    dataset = read_dataset("data/shapes-none0.npz")
    assert np.array_equal(dataset.train_labels, dataset.clean_labels)
    assert dataset.meta["rate_asked"] == dataset.meta["rate_found"] == 0


def test_validation_images_are_held_out_with_noisy_labels(script, workplace):
    flags = [*SHAPES, "--train-size", 100, "--test-size", 10]
    status, out, _ = script("generate", *flags, "--val-size", 30, "--out", "split.npz")
    assert status == 0 and "70 training, 30 held-out" in out
    assert script("generate", *flags, "--out", "whole.npz")[0] == 0
    split, whole = read_dataset("split.npz"), read_dataset("whole.npz")
    held_out = by_image(split.val_images, split.val_labels)
    kept = by_image(split.train_images, split.clean_labels)
    clean = by_image(whole.train_images, whole.clean_labels)
    assert len(held_out) == 30 and len(kept) == 70 and {*held_out, *kept} == {*clean}
    assert kept.items() <= clean.items()
    assert np.sum(split.train_labels != split.clean_labels) == 28
    assert sum(label != clean[image] for image, label in held_out.items()) == 12
    assert split.meta["val_rate_found"] == 0.4
    assert split.meta["val_size"] == 30 and split.meta["train_size"] == 70
    assert np.bincount([clean[image] for image in held_out]).tolist() == [3] * 10


def test_labels_from_a_file_follow_their_images(script, workplace):
    flags = [*TINY, "--train-size", 60]
    assert script("generate", *flags, "--noise", "none", "--out", "whole.npz")[0] == 0
    labels = np.random.default_rng(0).integers(0, 10, 60)
    (workplace / "human.json").write_text(json.dumps({"a": labels.tolist(), "b": [1] * 60}))
    flags += ["--noise", "human.json", "--labels", "a", "--accept-chance-labels"]
    status, out, _ = script("generate", *flags, "--val-size", 20)
    dataset = read_dataset("data/shapes-human-a.npz")
    found = by_image(dataset.train_images, dataset.train_labels)
    found |= by_image(dataset.val_images, dataset.val_labels)
    assert found == by_image(read_dataset("whole.npz").train_images, labels)
    wrong = int(np.sum(dataset.train_labels != dataset.clean_labels))
    assert status == 0 and f"{wrong} of 40 training labels are wrong" in out
    assert dataset.meta["noise"] == "human-a" and dataset.meta["rate_asked"] is None
    assert dataset.meta["rate_found"] == wrong / 40


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rate", "1.1"], ["--rate", "at most 1"]),
        (["--noise", "purple"], ["--noise", "purple", "symmetric"]),
        (["--noise", "asymmetric"], ["--noise", "asymmetric", "CIFAR-10"]),
        (["--labels", "worse_label"], ["--labels", "--noise"]),
        (["--val-size", "-1"], ["--val-size"]),
        (["--val-size", "40"], ["--val-size", "train"]),
        (["--dataset", "nowhere"], ["nowhere", "shapes"]),
        (["--matched"], ["--matched", "--noise"]),
        (["--noise", "none", "--rate", "0.2"], ["--noise none", "leave --rate out"]),
        (["--noise", "data/small.npz", "--rate", "0.2"], ["--rate belongs to a noise model"]),
        (["--noise", "pipe.json"], ["nor a file"]),
        (["--accept-chance-labels"], ["--accept-chance-labels", "--noise"]),
        (["--image-size", "32"], ["--image-size", "folder"]),
        (["--dataset", "photos", "--image-size", "65"], ["--image-size: 65", "64"]),
        (["--export", "x.json", "--out", "x.json"], ["--out and --export are both"]),
        (["--noise", "data/small.npz", "--out", "data/small.npz"], ["--out and --noise are both"]),
        (["--noise", "link.npz", "--export", "data/small.npz"], ["--export and --noise are both"]),
        (["--export", "data/small.npz"], ["--export data/small.npz exists with other content"]),
        (["--out", "data"], ["data exists and is not this data set"]),
        (["--export", "x.json", "--if-missing"], ["--export", "--if-missing"]),
        (["--export", "x.json", "--val-size", "40"], ["--val-size 40"]),
        (["--export", "x.npy"], ["--export x.npy", "name it .json"]),
        *(
            (["--dataset", "photos", flag, "1000"], [f"{flag} 1000: ", f"use a smaller {flag}"])
            for flag in ("--train-size", "--test-size", "--val-size")
        ),
    ],
)
def test_wrong_flags_are_refused(refused, workplace, flags, words):
    make_image_folder(workplace / "photos", count=20)
    (workplace / "link.npz").hardlink_to(workplace / "data/small.npz")
    os.mkfifo(workplace / "pipe.json")
    before = sorted(workplace.rglob("*"))
    message = refused("generate", *FEW, *flags)
    assert all(word in message for word in words), message
    assert sorted(workplace.rglob("*")) == before


# --- --if-missing ---


def test_if_missing_makes_a_file_once(script, workplace):
    folder = make_image_folder(workplace / "photos")
    flags = ["--dataset", folder, "--noise", "symmetric", "--rate", "0.5", "--if-missing"]
    status, out, _ = script("generate", *flags)
    path = workplace / "data/photos-symmetric50.npz"
    assert status == 0 and "written: data/photos-symmetric50.npz" in out
    before = path.stat()
    shutil.rmtree(folder)  # it is not read again
    exists = "exists: data/photos-symmetric50.npz\n"
    assert script("generate", *flags) == (0, exists, "")
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([*FEW, "--noise", "symmetric"], "noise = pair, not symmetric"),
        ([*FEW, "--rate", "0.2"], "rate_asked = 0.4, not 0.2"),
        ([*FEW, "--seed", "1"], "seed = 0, not 1"),
        ([*FEW, "--val-size", "20"], "val_size = 10, not 20"),
        ([*FEW, "--train-size", "50"], "train_size = 30, not 40"),
        ([*FEW, "--test-size", "10"], "test_size = 20, not 10"),
        ([*FEW, "--dataset", "cifar10"], "source = shapes, not cifar10"),
        ([*SHAPES, "--val-size", "10"], "train_size = 30, not 1990"),
        ([*SHAPES, "--val-size", "10", "--train-size", "40"], "test_size = 20, not 1000"),
    ],
)
def test_if_missing_refuses_another_data_set(script, refused, workplace, flags, words):
    assert script("generate", *FEW, "--out", "a.npz")[0] == 0
    before = (workplace / "a.npz").read_bytes()
    message = refused("generate", *flags, "--out", "a.npz", "--if-missing")
    assert f"a.npz exists with {words}" in message and "--out" in message
    assert (workplace / "a.npz").read_bytes() == before


# --- --export ---


@pytest.mark.parametrize("size", [[], ["--val-size", 50]])
def test_the_same_data_set_from_the_exported_labels(script, workplace, size):
    data = [*SHAPES, "--train-size", 200, "--test-size", 20, *size]
    flags = [*data, "--noise", "symmetric", "--out", "a.npz", "--export", "labels.json"]
    for _ in range(2):  # the same export may be written again
        status, out, err = script("generate", *flags)
        assert status == 0 and err == "" and "written: a.npz\nwritten: labels.json\n" in out
    labels = json.loads((workplace / "labels.json").read_text())
    assert type(labels) is list and {type(label) for label in labels} == {int}
    assert len(labels) == 200
    (workplace / "labels.json").rename("pair.json")
    assert script("generate", *data, "--noise", "pair.json", "--out", "b.npz")[0] == 0
    assert array_digests(read_dataset("a.npz")) == array_digests(read_dataset("b.npz"))
    assert read_dataset("b.npz").meta["noise"] == "pair-file"  # not the model of that name


@pytest.mark.parametrize("size", [[], ["--train-size", 30]])
def test_an_export_of_a_folder_names_its_files(script, refused, workplace, size):
    folder = make_image_folder(workplace / "photos", count=20)
    flags = ["--dataset", folder, "--val-size", 10, *size]
    export = ["--rate", "0.1", "--out", "a.npz", "--export", "l.json"]
    assert script("generate", *flags, *export)[0] == 0
    export, dataset = json.loads((workplace / "l.json").read_text()), read_dataset("a.npz")
    found = dict(zip(export["file"], export["label"], strict=True))
    expected = {}
    for split in ("train", "val"):
        labels = getattr(dataset, f"{split}_labels").tolist()
        expected |= dict(zip(dataset.chosen[f"{split}_files"].tolist(), labels, strict=True))
    assert found == expected and list(found) == sorted(found, key=lambda name: (name[:9], name))
    status, out, _ = script("generate", *flags, "--noise", "l.json", "--out", "b.npz")
    assert status == 0 and "placed by file name (file)" in out
    assert array_digests(dataset) == array_digests(read_dataset("b.npz"))
    if size:
        message = refused("generate", *flags, "--noise", "l.json", "--seed", 1)
        assert "has no label for" in message and "train/" in message


# --- two at once, names that steer a terminal ---


@pytest.mark.slow
def test_two_at_once_write_one_data_set(workplace):
    flags = [*SHAPES, "--train-size", 1000, "--test-size", 20, "--out", "a.npz", "--seed"]
    both = [start_python(ROOT / "generate.py", *flags, seed) for seed in (1, 2)]
    ends = [(process.communicate(), process.returncode) for process in both]
    assert sorted(status for _, status in ends) == [0, 2], ends
    (_, error), _ = max(ends, key=lambda end: end[1])
    assert "a.npz exists with seed = " in error and error.count("\n") == 1
    winner = 1 + [status for _, status in ends].index(0)
    assert read_meta("a.npz")["seed"] == winner
    assert not list(workplace.glob("*.lock"))


def test_names_cannot_steer_the_terminal(script, workplace):
    escape = "\x1b[31mred"
    folder = make_image_folder(workplace / "photos", count=20, classes=[escape, "b\u9999"])
    names = [f"train/{name}/{k}.png" for name in (escape, "b\u9999") for k in range(20)]
    content = {"file": names, escape: [(k // 20) ^ (k < 6) for k in range(40)], "x\x07": [0.5] * 40}
    (workplace / f"{escape}.json").write_text(json.dumps(content))
    flags = ["--dataset", folder, "--noise", f"{escape}.json", "--out", "a.npz"]
    status, out, err = script("generate", *flags)
    assert status == 0 and "\x1b" not in out + err and "\x07" not in out
    assert r"\x1b[31mred" in out and r"not used: x\x07" in out


def test_photographs_are_resized_and_the_data_set_says_so(script, refused, workplace):
    folder = make_image_folder(workplace / "photos", size=(90, 70))
    assert "--image-size 32" in refused("generate", "--dataset", folder)
    status, out, _ = script("generate", "--dataset", folder, "--image-size", 16)
    assert status == 0 and "of 16x16 pixels, cropped and resized" in out
    assert read_meta("data/photos-pair40.npz")["image_size"] == 16
    message = refused("generate", "--dataset", folder, "--image-size", 8, "--if-missing")
    assert "exists with image_size = 16, not 8" in message
