"""generate.py --export: the noisy labels in the source's order, for other projects and back."""

import json

import numpy as np
import pytest
from helpers import make_image_folder

from dataset.data_file import array_digests, read_dataset

SHAPES = ["--dataset", "shapes", "--train-size", 200, "--test-size", 20]


@pytest.mark.parametrize(
    "noise", [["pair"], ["symmetric", "--rate", "0.6"], ["symmetric", "--val-size", 50]]
)
def test_the_same_data_set_from_the_exported_labels(script, workplace, noise):
    flags = ["--noise", *noise, "--out", "a.npz", "--export", "labels.json"]
    status, out, err = script("generate", *SHAPES, *flags)
    assert status == 0 and err == "" and "written: a.npz\nwritten: labels.json\n" in out
    labels = json.loads((workplace / "labels.json").read_text())
    assert type(labels) is list and {type(label) for label in labels} == {int}
    assert len(labels) == 200
    size = noise[noise.index("--val-size") :] if "--val-size" in noise else []
    flags = ["--noise", "labels.json", *size, "--out", "b.npz"]
    assert script("generate", *SHAPES, *flags)[0] == 0
    assert array_digests(read_dataset("a.npz")) == array_digests(read_dataset("b.npz"))


def test_labels_stand_in_the_order_of_the_source(script, workplace):
    """Also where images are held out: each label stands at its image's place in the folder."""
    folder = make_image_folder(workplace / "photos", count=20)
    flags = ["--dataset", folder, "--noise", "pair", "--val-size", 10]
    assert script("generate", *flags, "--out", "a.npz", "--export", "labels.json")[0] == 0
    labels = json.loads((workplace / "labels.json").read_text())
    assert script("generate", *flags[:2], "--noise", "none", "--out", "b.npz")[0] == 0
    whole, dataset = read_dataset("b.npz"), read_dataset("a.npz")
    place = {image.tobytes(): k for k, image in enumerate(whole.train_images)}
    for images, noisy in (
        (dataset.train_images, dataset.train_labels),
        (dataset.val_images, dataset.val_labels),
    ):
        assert [labels[place[image.tobytes()]] for image in images] == noisy.tolist()
    assert np.sum(labels != whole.clean_labels) == 16  # 40% of 30 and of 10 images


def test_a_choice_of_images_has_no_labels_for_the_others(refused, workplace):
    folder = make_image_folder(workplace / "photos", count=20)
    flags = ["--dataset", folder, "--train-size", 20, "--export", "labels.json"]
    message = refused("generate", *flags)
    assert "--export" in message and "--train-size" in message
    assert not (workplace / "labels.json").exists()
    assert [path.name for path in (workplace / "data").iterdir()] == ["small.npz"]


def test_export_always_writes(refused, workplace):
    message = refused("generate", *SHAPES, "--export", "labels.json", "--if-missing")
    assert "--export" in message and "--if-missing" in message


def test_a_refused_data_set_exports_nothing(refused, workplace):
    refused("generate", *SHAPES, "--val-size", 200, "--export", "labels.json")
    assert not (workplace / "labels.json").exists()
