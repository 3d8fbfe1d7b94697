"""dataset/label_files.py: label files of every kind, good and bad."""

import json
import os

import numpy as np
import pytest
import torch

from common.errors import UserError
from dataset.label_files import read_labels

CLEAN = np.arange(30) % 10
NOISY = np.where(np.arange(30) % 3 == 0, (CLEAN + 3) % 10, CLEAN)
# A permutation: every sum and every count stays the same.
SWAPPED = np.concatenate((CLEAN[[1, 0]], CLEAN[2:]))


def write_labels(path, content):
    if path.suffix == ".json":
        path.write_text(json.dumps(np.asarray(content).tolist()))
    elif path.suffix == ".npy":
        np.save(path, content)
    else:
        torch.save(content, path)
    return path


def cifar10n(**changes):
    """What CIFAR-10_human.pt holds: a dict of numpy arrays, the clean labels among them."""
    content = {"clean_label": CLEAN, "worse_label": NOISY, "aggre_label": CLEAN}
    content |= {f"random_label{k}": np.roll(NOISY, 10 * k) for k in (1, 2, 3)}
    return content | changes


@pytest.mark.parametrize("suffix", [".json", ".npy", ".pt", ".pth"])
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_a_list_of_labels(tmp_path, suffix, dtype):
    path = write_labels(tmp_path / f"labels{suffix}", NOISY.astype(dtype))
    labels = read_labels(path, None, CLEAN, 10)
    np.testing.assert_array_equal(labels, NOISY)
    assert labels.dtype == np.int64


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["worse_label", "aggre_label", "random_label1", "random_label3"])
def test_labels_of_cifar10n(tmp_path, name, zipped):
    path = tmp_path / "CIFAR-10_human.pt"
    torch.save(cifar10n(), path, _use_new_zipfile_serialization=zipped)
    np.testing.assert_array_equal(read_labels(path, name, CLEAN, 10), cifar10n()[name])


def test_tensors_in_a_dict(tmp_path):
    tensors = {name: torch.from_numpy(labels) for name, labels in cifar10n().items()}
    path = write_labels(tmp_path / "a.pt", tensors)
    np.testing.assert_array_equal(read_labels(path, "worse_label", CLEAN, 10), NOISY)


def test_arrays_of_either_numpy_version(tmp_path):
    # numpy 1 wrote numpy.core, numpy 2 writes numpy._core: each reads the other's.
    path = tmp_path / "a.pt"
    torch.save(cifar10n(), path, _use_new_zipfile_serialization=False)
    raw, names = path.read_bytes(), (b"numpy._core.", b"numpy.core.")
    assert any(name in raw for name in names)
    for name in names:
        path.write_bytes(raw.replace(names[0], name).replace(names[1], name))
        np.testing.assert_array_equal(read_labels(path, "worse_label", CLEAN, 10), NOISY)


def test_json_with_names(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"noisy": NOISY.tolist(), "clean_label": CLEAN.tolist()}))
    np.testing.assert_array_equal(read_labels(path, "noisy", CLEAN, 10), NOISY)


class Foreign:
    """Unpickled, it makes the folder `executed`."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


# What is wrong with the file: its suffix, its content, the labels asked for, words of the message.
BAD_FILES = {
    "too few": (".json", NOISY[:-1], None, ["29 labels", "30"]),
    "over the last class": (".json", NOISY + 1, None, ["1 to 10", "0..9"]),
    "negative": (".npy", NOISY - 1, None, ["-1", "0..9"]),
    "floats": (".npy", NOISY.astype(float), None, ["float64", "integers"]),
    "a column": (".npy", NOISY[:, None], None, ["(30, 1)", "integers"]),
    "pickled": (".npy", NOISY.astype(object), None, ["cannot be read"]),
    "none": (".json", [], None, ["integers"]),
    "a name for one list": (".json", NOISY, "worse_label", ["--labels", "one list"]),
    "no name": (".pt", cifar10n(), None, ["--labels", "worse_label", "random_label3"]),
    "no such name": (".pt", cifar10n(), "best_label", ["best_label", "--labels", "worse_label"]),
    "the clean labels": (".pt", cifar10n(), "clean_label", ["--labels", "worse_label"]),
    "another order": (
        ".pt",
        cifar10n(clean_label=SWAPPED),
        "worse_label",
        ["clean labels", "2 of 30"],
    ),
    "too few of a name": (
        ".pt",
        cifar10n(worse_label=NOISY[:5]),
        "worse_label",
        ["worse_label", "5 labels"],
    ),
    "foreign code": (".pt", cifar10n(other=Foreign()), "worse_label", ["cannot be read"]),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    suffix, content, labels, words = BAD_FILES[name]
    path = write_labels(tmp_path / f"labels{suffix}", content)
    with pytest.raises(UserError) as error:
        read_labels(path, labels, CLEAN, 10)
    message = str(error.value)
    assert all(word in message for word in [str(path), *words]), message
    assert "\n" not in message and not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["a.json", "a.npy", "a.pt", "a.txt"])
@pytest.mark.parametrize("raw", [b"", b"\x80\x02garbage", b"\xff\xfe{"])
def test_damaged_files_are_refused(tmp_path, name, raw):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(UserError, match="cannot be read"):
        read_labels(tmp_path / name, None, CLEAN, 10)


def test_ragged_lists_are_refused(tmp_path):
    (tmp_path / "a.json").write_text("[[1, 2], [3]]")
    with pytest.raises(UserError, match="integers"):
        read_labels(tmp_path / "a.json", None, CLEAN, 10)
