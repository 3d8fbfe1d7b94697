"""dataset/make.py: which images are chosen, what is recorded, matched noise, what exists."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import make_dataset, make_image_folder

from common.command_line import UserError
from common.files import write_json
from dataset.data_file import read_dataset, write_dataset
from dataset.labels import read_labels
from dataset.make import (
    SAMPLE_SIZE,
    DataSettings,
    _export,
    check_unused,
    describe,
    exists_already,
    sample_indices,
)
from dataset.make import make_dataset as make
from dataset.sources import load_folder, load_source

PHOTOS = [(name, k) for name in ("ant", "bee") for k in range(20)]
SMALL = DataSettings(dataset="shapes", train_size=60, val_size=20, test_size=20)


# --- subsets ---


def test_the_sample_is_all_training_images_or_a_balanced_subset():
    few, many = make_dataset(), make_dataset(train=SAMPLE_SIZE + 4, size=1)
    assert sample_indices(few, None).tolist() == list(range(60))
    cases = [(few, size, size) for size in (1, 22, 59)]
    for dataset, size, count in (*cases, (many, None, SAMPLE_SIZE), (many, 41, 41)):
        indices = sample_indices(dataset, size)
        assert sorted(set(indices.tolist())) == indices.tolist() and len(indices) == count
        counts = np.bincount(dataset.clean_labels[indices], minlength=4)
        assert counts.max() - counts.min() <= 1
    with pytest.raises(UserError, match=r"^--sample-size 61: .* use a smaller --sample-size$"):
        sample_indices(few, 61)


# --- what is recorded ---


def test_the_images_can_be_taken_back_to_their_files(workplace):
    folder = make_image_folder(workplace / "photos", count=20)
    settings = DataSettings(dataset=str(folder), train_size=20, val_size=6, test_size=10)
    write_dataset(workplace / "a.npz", make(settings).dataset)
    dataset, source = read_dataset("a.npz"), load_folder(folder)
    for split in ("train", "val", "test"):
        part = "test" if split == "test" else "train"
        indices, files = (dataset.chosen[f"{split}_{what}"] for what in ("indices", "files"))
        images = getattr(dataset, f"{split}_images")
        np.testing.assert_array_equal(images, getattr(source, f"{part}_images")[indices])
        names = getattr(source, f"{part}_files")
        assert files.tolist() == [names[k] for k in indices]
        assert sorted(set(indices.tolist())) == indices.tolist()
        labels = getattr(source, f"{part}_labels")[indices]
        assert np.bincount(labels).tolist() == [len(indices) // 2] * 2
    assert not np.intersect1d(dataset.chosen["train_indices"], dataset.chosen["val_indices"]).size
    assert dataset.meta["source_sha256"] and dataset.meta["labels_sha256"] is None


def test_copies_are_counted(workplace):
    folder = make_image_folder(workplace / "photos", count=4)
    for place in ("train/ant/1.png", "train/bee/2.png", "test/bee/0.png"):
        (folder / place).write_bytes((folder / "train/ant/0.png").read_bytes())
    line = describe(make(DataSettings(dataset=str(folder))))[1]
    assert "2 training images are exact copies of another one, 1 test images" in line


def test_an_export_of_a_part_of_a_source_without_files(workplace):
    """Of CIFAR; a shapes source has always just the images that are asked for."""
    settings, half = replace(SMALL, train_size=200, val_size=0), np.arange(0, 200, 2)
    made = make(settings).dataset
    labels = made.train_labels[half]
    chosen = {**made.chosen, "train_indices": half}
    export = _export(replace(made, chosen=chosen, train_labels=labels), 200)
    assert export == {"index_from_0": half.tolist(), "label": labels.tolist()}
    write_json(workplace / "l.json", export)
    noisy, words = read_labels(workplace / "l.json", None, load_source(settings), chosen=half)
    assert noisy[half].tolist() == labels.tolist() and "by index (index_from_0)" in words


def test_the_matched_control_of_a_file(workplace):
    settings = replace(SMALL, train_size=300, val_size=60, noise="human.npy", rate=None)
    clean = load_source(settings).train_labels
    noisy = clean.copy()
    for label in range(10):
        members = np.flatnonzero(clean == label)
        noisy[members[: len(members) // 3]] = (label + 1 + label % 3) % 10
    np.save("human.npy", noisy)  # of each class, the first third of the images is wrong
    file, matched, again = (
        make(replace(settings, matched=matched)).dataset for matched in (False, True, True)
    )
    assert matched.meta["noise"] == "human-matched" and matched.sha256 == again.sha256
    assert matched.meta["transitions"] == file.meta["transitions"]
    assert matched.meta["rate_found"] == file.meta["rate_found"] > 0
    assert matched.meta["val_rate_found"] == file.meta["val_rate_found"] > 0
    np.testing.assert_array_equal(matched.train_images, file.train_images)
    assert sorted(matched.val_labels) == sorted(file.val_labels)
    # Which images are wrong is another draw: of two independent thirds a ninth is shared.
    wrong = [d.train_labels != d.clean_labels for d in (file, matched)]
    assert np.mean(wrong[0]) == pytest.approx(1 / 3, abs=0.03)
    assert np.mean(wrong[0] & wrong[1]) == pytest.approx(1 / 9, abs=0.05)


# --- what exists ---


def test_another_label_file_or_folder_is_another_data_set(workplace):
    folder = make_image_folder(workplace / "photos", count=20)
    settings = DataSettings(dataset=str(folder), noise="labels.json", rate=None)
    labels = {f"{name}/{k}.png": int(name == "bee" or k < 3) for name, k in PHOTOS}
    write_json(workplace / "labels.json", labels)
    path, made = workplace / "x.npz", make(settings).dataset
    write_dataset(path, made)
    assert exists_already(path, settings)
    write_json(workplace / "labels.json", {**labels, "ant/9.png": 1})
    with pytest.raises(UserError, match="exists, made from another label file; name another"):
        exists_already(path, settings)
    write_json(workplace / "labels.json", labels)
    (folder / "train/ant/0.png").write_bytes((folder / "test/ant/0.png").read_bytes())
    with pytest.raises(UserError, match=r"exists, made from another source \(names, sizes"):
        check_unused(path, settings, made)


@pytest.mark.parametrize("size", ["train_size", "test_size"])
def test_a_part_of_a_folder_is_not_the_whole(workplace, size):
    folder = make_image_folder(workplace / "photos", count=10)
    whole = DataSettings(dataset=str(folder), val_size=2)
    part, path = replace(whole, **{size: 4}), workplace / "part.npz"
    write_dataset(path, make(part).dataset)
    assert exists_already(path, part)
    with pytest.raises(UserError, match=f"exists with {size} = "):
        exists_already(path, whole)
    write_dataset(workplace / "whole.npz", make(whole).dataset)
    assert exists_already(workplace / "whole.npz", whole)
    folder.rename(workplace / "moved")
    assert exists_already(path, part) and exists_already(workplace / "whole.npz", whole)


def test_what_older_files_do_not_record_is_not_compared(workplace):
    made = make(SMALL).dataset
    old = {k: v for k, v in made.meta.items() if not k.endswith("_sha256") and k != "image_size"}
    write_dataset(workplace / "a.npz", replace(made, meta=old, chosen={}))
    assert exists_already(workplace / "a.npz", SMALL) and read_dataset("a.npz").chosen == {}
    check_unused(workplace / "a.npz", SMALL, made)
    labels = 1 - made.test_labels % 2
    with pytest.raises(UserError, match=r"a.npz exists and is not this data set"):
        check_unused(workplace / "a.npz", SMALL, replace(made, test_labels=labels))
