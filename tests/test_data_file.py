"""dataset/data_file.py: what is written is read back; anything else is refused in one line."""

import io
import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from helpers import make_dataset

from common.command_line import UserError
from dataset.data_file import (
    ARRAYS,
    FORMAT_VERSION,
    file_digest,
    read_chosen,
    read_dataset,
    read_meta,
    write_dataset,
)


def read_members(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_round_trip_is_exact(tmp_path):
    path, before = tmp_path / "new/folder/a.npz", make_dataset(val=10)
    write_dataset(path, before)
    after = read_dataset(path)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
        assert getattr(after, name).dtype == getattr(before, name).dtype
    assert after.class_names == before.class_names and after.sha256 == before.sha256
    assert before.meta.items() <= after.meta.items()
    sizes = {name: after.meta[f"{name}_size"] for name in ("train", "val", "test")}
    assert sizes == {"train": 60, "val": 10, "test": 40}
    assert read_meta(path) == after.meta
    assert (after.num_classes, after.image_size) == (4, (8, 8))
    assert [file.name for file in path.parent.iterdir()] == ["a.npz"]


def test_which_images_these_are_is_kept_but_not_part_of_the_digest(tmp_path):
    before = make_dataset(val=10)
    chosen = {
        "train_indices": np.arange(60),
        "val_indices": np.arange(60, 70),
        "test_files": np.array([f"test/é\u9999/{k}.png" for k in range(40)]),
    }
    write_dataset(tmp_path / "a.npz", replace(before, chosen=chosen))
    after = read_dataset(tmp_path / "a.npz")
    assert after.sha256 == before.sha256 == file_digest(tmp_path / "a.npz")
    for found in (after.chosen, read_chosen(tmp_path / "a.npz")):
        assert found.keys() == chosen.keys()
        for name, values in chosen.items():
            np.testing.assert_array_equal(found[name], values)


def test_equal_data_sets_are_equal_files(tmp_path):
    for name in "ab":
        write_dataset(tmp_path / name, make_dataset())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("name", ARRAYS)
def test_the_digest_depends_on_every_array(name):
    original, changed = make_dataset(val=4), make_dataset(val=4)
    getattr(changed, name).flat[5 % getattr(changed, name).size] ^= 1
    assert changed.sha256 != original.sha256


def test_the_file_is_complete_and_free_of_pickles(tmp_path):
    write_dataset(tmp_path / "a.npz", make_dataset())
    content = read_members(tmp_path / "a.npz")
    assert set(content) == {*ARRAYS, "class_names", "meta"}
    meta = json.loads(str(content["meta"]))
    assert set(meta["sha256"]) == set(ARRAYS) and meta["format"] == FORMAT_VERSION


# --- damaged files ---


def replace_bytes(change):
    """A damage of the file's bytes."""
    return lambda path: path.write_bytes(change(path.read_bytes()))


def replace_members(change):
    """A damage of the file's arrays: `change` returns those to replace, None for one to drop."""

    def damage(path):
        content = read_members(path)
        content.update(change(content))
        with open(path, "wb") as file:
            np.savez(file, **{name: value for name, value in content.items() if value is not None})

    return damage


def replace_meta(change):
    return replace_members(
        lambda content: {"meta": np.array(change(json.loads(str(content["meta"]))))}
    )


def replace_by_one_array(path):
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))


def flip_one_bit(path):
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        start = file.getinfo("train_images.npy").header_offset
    raw[start + 1000] ^= 1
    path.write_bytes(raw)


def write_huge_header(path):
    """Labels of 10^13 images, and none."""
    text = b"{'descr': '<i8', 'fortran_order': False, 'shape': (10000000000000,), }"
    raw = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    with zipfile.ZipFile(path, "w") as file:
        for name in (*ARRAYS, "class_names", "meta"):
            file.writestr(f"{name}.npy", raw)


def write_bomb(path):
    """A zip file that says of itself that it holds 4 EiB."""
    with zipfile.ZipFile(path, "w", allowZip64=True) as file:
        file.writestr("meta.npy", b"")
        file.filelist[0].file_size = 2**62


def with_first_label(labels, label):
    return np.concatenate(([label], labels[1:]))


# What is wrong with the file: how it is made so, and what the message says.
DAMAGES = {
    "missing": (lambda path: path.unlink(), "no such file"),
    "cut short": (replace_bytes(lambda raw: raw[: len(raw) // 2]), "cannot be read"),
    "empty": (replace_bytes(lambda raw: b""), "cannot be read"),
    "text": (replace_bytes(lambda raw: b"hello"), "not a data set"),
    "one array": (replace_by_one_array, "not a data set"),
    "one bit flipped": (flip_one_bit, "cannot be read (Bad CRC-32"),
    "class names pickled": (
        replace_members(lambda content: {"class_names": np.array([{"a": 1}], dtype=object)}),
        "pickled objects",
    ),
    "an array missing": (replace_members(lambda content: {"clean_labels": None}), "clean_labels"),
    "too many labels": (
        replace_members(lambda content: {"train_labels": np.append(content["train_labels"], 0)}),
        "train_labels is int64 (61,)",
    ),
    "labels of another type": (
        replace_members(lambda content: {"test_labels": content["test_labels"].astype(np.int32)}),
        "test_labels is int32 (40,)",
    ),
    "a label out of range": (
        replace_members(
            lambda content: {"test_labels": with_first_label(content["test_labels"], 4)}
        ),
        "test_labels has labels outside 0..3",
    ),
    "a negative label": (
        replace_members(
            lambda content: {"test_labels": with_first_label(content["test_labels"], -1)}
        ),
        "test_labels has labels outside 0..3",
    ),
    "float images": (
        replace_members(lambda content: {"test_images": content["test_images"].astype(np.float32)}),
        "test_images is float32",
    ),
    "gray images": (
        replace_members(lambda content: {"test_images": content["test_images"][..., :1]}),
        "test_images is uint8 (40, 8, 8, 1)",
    ),
    "images of two sizes": (
        replace_members(lambda content: {"test_images": content["test_images"][:, 1:]}),
        "test_images differ in size",
    ),
    "no test images": (
        replace_members(
            lambda content: {name: content[name][:0] for name in ("test_images", "test_labels")}
        ),
        "test_images is empty",
    ),
    "a label changed by hand": (
        replace_members(
            lambda content: {"train_labels": with_first_label(content["train_labels"], 3)}
        ),
        "train_labels does not match its sha256",
    ),
    "too few indices": (
        replace_members(lambda content: {"train_indices": np.arange(59)}),
        "train_indices is int64 (59,)",
    ),
    "files that are no text": (
        replace_members(lambda content: {"test_files": np.arange(40)}),
        "test_files is int64 (40,)",
    ),
    "a header of too many labels": (write_huge_header, "a.npz: "),
    "content beyond memory": (write_bomb, "larger than the memory"),
    "another version": (replace_meta(lambda meta: json.dumps({**meta, "format": 99})), "format 99"),
    "no digests": (replace_meta(lambda meta: json.dumps({**meta, "sha256": {}})), "sha256"),
    "no entry for digests": (replace_meta(lambda meta: '{"format": 2}'), "sha256"),
    "meta no object": (replace_meta(lambda meta: "[]"), "meta is not a JSON object"),
    "meta no JSON": (replace_meta(lambda meta: "{"), "not a data set: meta"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_bad_file_is_refused_in_one_line(tmp_path, name):
    path, (damage, words) = tmp_path / "a.npz", DAMAGES[name]
    write_dataset(path, make_dataset())
    damage(path)
    with pytest.raises(UserError) as error:
        read_dataset(path)
    message = str(error.value)
    assert str(path) in message and "generate.py" in message and "\n" not in message
    assert words in message


@pytest.mark.parametrize("name", ["missing", "cut short", "text", "meta no object", "meta no JSON"])
def test_a_bad_meta_is_refused_in_one_line(tmp_path, name):
    path, (damage, words) = tmp_path / "a.npz", DAMAGES[name]
    write_dataset(path, make_dataset())
    damage(path)
    with pytest.raises(UserError) as error:
        read_meta(path)
    assert str(path) in str(error.value) and words in str(error.value)


class Bomb:
    """Unpickled, it makes the file at `path`."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_pickles_are_not_executed(tmp_path):
    bomb = Bomb(tmp_path / "boom")
    array = io.BytesIO()
    np.save(array, np.array([bomb], dtype=object), allow_pickle=True)
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(bomb))
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as file:
        for name in (*ARRAYS, "class_names", "meta"):
            file.writestr(f"{name}.npy", array.getvalue())
    for name in ("plain.npz", "zip.npz"):
        with pytest.raises(UserError, match="pickle"):
            read_dataset(tmp_path / name)
    assert not (tmp_path / "boom").exists()
    pickle.loads((tmp_path / "plain.npz").read_bytes())  # it does go off
    assert (tmp_path / "boom").exists()
