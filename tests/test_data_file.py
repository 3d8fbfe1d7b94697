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
    file_digest,
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
    assert after.chosen.keys() == chosen.keys()
    for name, values in chosen.items():
        np.testing.assert_array_equal(after.chosen[name], values)


@pytest.mark.parametrize("name", ARRAYS)
def test_the_digest_depends_on_every_array(name):
    original, changed = make_dataset(val=4), make_dataset(val=4)
    getattr(changed, name).flat[5 % getattr(changed, name).size] ^= 1
    assert changed.sha256 != original.sha256


# --- damaged files ---


def change_bytes(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def change_member(name, change):
    """A damage of one array; `change` returns None to drop it."""

    def damage(path):
        content = read_members(path)
        content[name] = change(content[name])
        with open(path, "wb") as file:
            np.savez(file, **{name: value for name, value in content.items() if value is not None})

    return damage


def change_meta(**values):
    return change_member(
        "meta", lambda text: np.array(json.dumps({**json.loads(str(text)), **values}))
    )


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


def first_label(label):
    return lambda labels: np.concatenate(([label], labels[1:]))


PICKLED = np.array([{"a": 1}], dtype=object)
# What is wrong with the file: how it is made so, and what the message says.
DAMAGES = {
    "missing": (lambda path: path.unlink(), "no such file"),
    "cut short": (change_bytes(lambda raw: raw[: len(raw) // 2]), "cut short"),
    "empty": (change_bytes(lambda raw: b""), "no .npz file"),
    "text": (change_bytes(lambda raw: b"hello"), "no .npz file"),
    "one bit": (flip_one_bit, "Bad CRC-32"),
    "pickled": (change_member("class_names", lambda names: PICKLED), "pickled objects"),
    "an array missing": (change_member("clean_labels", lambda labels: None), "clean_labels"),
    "too many labels": (
        change_member("train_labels", lambda labels: np.append(labels, 0)),
        "train_labels is int64 (61,)",
    ),
    "labels of another type": (
        change_member("test_labels", lambda labels: labels.astype(np.int32)),
        "test_labels is int32 (40,)",
    ),
    "out of range": (change_member("test_labels", first_label(4)), "labels outside 0..3"),
    "negative": (change_member("test_labels", first_label(-1)), "labels outside 0..3"),
    "changed by hand": (
        change_member("train_labels", first_label(3)),
        "train_labels does not match its sha256",
    ),
    "float images": (
        change_member("test_images", lambda images: images.astype(np.float32)),
        "test_images is float32",
    ),
    "two sizes": (change_member("test_images", lambda images: images[:, 1:]), "differ in size"),
    "no test images": (
        change_member("test_images", lambda images: images[:0]),
        "test_images is empty",
    ),
    "too few indices": (
        change_member("train_indices", lambda indices: indices[:-1]),
        "train_indices is int64 (59,)",
    ),
    "files that are no text": (
        change_member("test_files", lambda files: np.arange(40)),
        "test_files is int64 (40,)",
    ),
    "a header of too many labels": (write_huge_header, "a.npz: "),
    "content beyond memory": (write_bomb, "larger than the memory"),
    "another version": (change_meta(format=99), "format 99"),
    "no digests": (change_meta(sha256={}), "sha256"),
    "meta no object": (change_member("meta", lambda text: np.array("[]")), "meta is not a JSON"),
    "meta no JSON": (change_member("meta", lambda text: np.array("{")), "meta is not a JSON"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_bad_file_is_refused_in_one_line(tmp_path, name):
    path, (damage, words) = tmp_path / "a.npz", DAMAGES[name]
    chosen = {"train_indices": np.arange(60), "test_files": np.array(list(map(str, range(40))))}
    write_dataset(path, replace(make_dataset(), chosen=chosen))
    damage(path)
    readers = [read_dataset]
    if name in ("missing", "cut short", "text", "meta no object", "meta no JSON"):
        readers += [read_meta, file_digest]
    for reader in readers:
        with pytest.raises(UserError) as error:
            reader(path)
        message = str(error.value)
        assert str(path) in message and "generate.py" in message and words in message, message


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
