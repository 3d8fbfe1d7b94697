"""data.py: the file's round trip and its refusals, normalisation, batches."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from conftest import make_dataset
from hypothesis import given
from hypothesis import strategies as st

import data


def content_of(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_round_trip_is_exact(tmp_path):
    before = make_dataset(val=10)
    data.write_dataset(tmp_path / "new/folder/a.npz", before)
    after = data.read_dataset(tmp_path / "new/folder/a.npz")
    for name in data.ARRAYS:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        assert getattr(after, name).dtype == getattr(before, name).dtype
    assert after.class_names == before.class_names and after.sha256 == before.sha256
    assert before.meta.items() <= after.meta.items()
    sizes = {name: after.meta[f"{name}_size"] for name in ("train", "val", "test")}
    assert sizes == {"train": 60, "val": 10, "test": 40}
    assert [p.name for p in (tmp_path / "new/folder").iterdir()] == ["a.npz"]


def test_same_content_is_the_same_file_and_other_labels_another_digest(tmp_path):
    for name in "ab":
        data.write_dataset(tmp_path / name, make_dataset())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    other = make_dataset()
    other.train_labels[5] ^= 1
    assert other.sha256 != make_dataset().sha256


def test_file_is_complete_and_free_of_pickle(tmp_path):
    data.write_dataset(tmp_path / "a.npz", make_dataset())
    content = content_of(tmp_path / "a.npz")
    assert set(content) == {*data.ARRAYS, "class_names", "meta"}
    meta = json.loads(str(content["meta"]))
    assert set(meta["sha256"]) == set(data.ARRAYS) and meta["format"] == data.FORMAT_VERSION


def damaged(path, name):
    """Overwrite a good file by one that is damaged in the way `name`."""
    content = content_of(path)
    raw = path.read_bytes()
    if name == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "text":
        path.write_text("hello")
    elif name == "one array":
        with open(path, "wb") as file:
            np.save(file, np.zeros(3))
    elif name == "bit flip":
        with zipfile.ZipFile(path) as file:
            place = file.getinfo("train_images.npy").header_offset + 1000
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
    elif name == "pickle":
        content["class_names"] = np.array([{"a": 1}], dtype=object)
    elif name == "missing array":
        del content["clean_labels"]
    elif name == "labels too long":
        content["train_labels"] = np.append(content["train_labels"], 0)
    elif name == "label out of range":
        content["test_labels"][0] = 4
    elif name == "float images":
        content["test_images"] = content["test_images"].astype(np.float32)
    elif name == "changed by hand":
        content["train_labels"][0] ^= 1
    elif name == "other version":
        content["meta"] = np.array(json.dumps({"format": 99}))
    elif name == "meta no JSON":
        content["meta"] = np.array("{")
    if path.read_bytes() == raw:
        with open(path, "wb") as file:
            np.savez(file, **content)


DAMAGES = """truncated, empty, text, one array, bit flip, pickle, missing array, labels too long,
label out of range, float images, changed by hand, other version, meta no JSON"""


@pytest.mark.parametrize("name", DAMAGES.replace("\n", " ").split(", "))
def test_a_bad_file_is_refused_in_one_line(tmp_path, name):
    path = tmp_path / "a.npz"
    data.write_dataset(path, make_dataset())
    damaged(path, name)
    with pytest.raises(data.DataError) as error:
        data.read_dataset(path)
    message = str(error.value)
    assert str(path) in message and "generate.py" in message and "\n" not in message


def test_pickles_are_not_executed(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "boom"), "w"))

    buffer = io.BytesIO()
    np.save(buffer, np.array([Bomb()], dtype=object), allow_pickle=True)
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Bomb()))
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as file:
        for name in (*data.ARRAYS, "class_names", "meta"):
            file.writestr(f"{name}.npy", buffer.getvalue())
    for name in ("plain.npz", "zip.npz"):
        with pytest.raises(data.DataError, match="pickle"):
            data.read_dataset(tmp_path / name)
    assert not (tmp_path / "boom").exists()


def test_normalize_against_numpy():
    images = make_dataset().train_images
    expected = (images / 255 - np.array(data.MEAN)) / np.array(data.STD)
    found = data.normalize(torch.from_numpy(images))
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected.transpose(0, 3, 1, 2), atol=2e-6)


@given(st.integers(0, 60), st.integers(0, 9))
def test_subsets_are_balanced_and_of_the_size_asked(size, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(6), 10))
    subset = data.balanced_subset(labels, size, 6, seed)
    assert len(set(subset.tolist())) == size and sorted(subset) == subset.tolist()
    counts = np.bincount(labels[subset], minlength=6)
    assert counts.max() - counts.min() <= 1


def test_a_subset_larger_than_a_class_is_refused():
    with pytest.raises(data.DataError, match="class 1, which has only 2"):
        data.balanced_subset(np.array([0, 0, 0, 1, 1]), 5 + 1, 2, 0)


def batches(images, augment, seed=0, batch_size=7):
    generator = torch.Generator().manual_seed(seed)
    parts = list(data.training_batches(images, batch_size, augment, generator))
    assert [len(index) for _, index in parts] == [7] * (len(images) // 7) + [len(images) % 7]
    return torch.cat([inputs for inputs, _ in parts]), torch.cat([index for _, index in parts])


def test_batches_hold_every_image_once_in_an_order_of_the_seed():
    images = torch.from_numpy(make_dataset().train_images)
    inputs, index = batches(images, augment=False)
    assert sorted(index.tolist()) == list(range(60)) != index.tolist()
    torch.testing.assert_close(inputs, data.normalize(images[index]), rtol=0, atol=0)
    assert not torch.equal(index, batches(images, augment=False, seed=1)[1])
    again = batches(images, augment=True)
    assert torch.equal(again[0], batches(images, augment=True)[0])
    # The same seed shows the images in one order with and without augmentation.
    assert torch.equal(again[1], index)


def test_augmentation_is_a_crop_and_mirror_of_each_image_on_its_own():
    images = torch.from_numpy(make_dataset(train=600, size=6).train_images[:, :, :5].copy())
    inputs, index = batches(images, augment=True)
    padded = np.pad(images.numpy(), ((0, 0), (4, 4), (4, 4), (0, 0)))
    # Every crop of every image, both ways round, to look each output up in.
    crops = {
        (dy, dx, way): data.normalize(
            torch.from_numpy(padded[:, dy : dy + 6, dx : dx + 5][:, :, ::way].copy())
        )
        for dy in range(9)
        for dx in range(9)
        for way in (1, -1)
    }
    seen = []
    for image, i in zip(inputs, index.tolist(), strict=True):
        (match,) = (key for key, crop in crops.items() if torch.equal(crop[i], image))
        seen.append(match)
    # Every offset and both sides turn up, about equally often.
    assert {dy for dy, _, _ in seen} == {dx for _, dx, _ in seen} == set(range(9))
    assert 0.4 < np.mean([way == 1 for _, _, way in seen]) < 0.6
