"""label_noise.py: the noise models, and label files of every kind, good and wrong."""

import collections
import json
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import data
import label_noise
import shapes

RATES = st.floats(0, 1)
COUNTS = st.integers(1, 300)
NAMES = list(label_noise.CIFAR10_CLASSES)


def names(classes):
    return [f"class {k}" for k in range(classes)]


@given(COUNTS, RATES, st.integers(2, 12), st.sampled_from(["pair", "symmetric"]), st.integers(0, 9))
def test_exactly_the_rate_is_wrong(count, rate, classes, noise, seed):
    labels = np.random.default_rng(1).integers(0, classes, count)
    given_labels = label_noise.flip_labels(labels, noise, rate, names(classes), seed)
    assert np.sum(given_labels != labels) == round(rate * count)
    assert given_labels.dtype == np.int64
    assert given_labels.min() >= 0 and given_labels.max() < classes
    if noise == "pair":
        wrong = given_labels != labels
        np.testing.assert_array_equal(given_labels[wrong], (labels[wrong] + 1) % classes)


@given(COUNTS, RATES, RATES, st.sampled_from(["pair", "symmetric", "asymmetric"]))
def test_labels_wrong_at_a_lower_rate_are_wrong_at_a_higher(count, first, second, noise):
    labels = np.random.default_rng(1).integers(0, 10, count)
    low, high = (
        label_noise.flip_labels(labels, noise, rate, NAMES, 0) for rate in sorted((first, second))
    )
    wrong = low != labels
    np.testing.assert_array_equal(low[wrong], high[wrong])


@given(COUNTS, RATES, st.permutations(NAMES))
def test_asymmetric_noise_flips_the_rate_of_five_classes(count, rate, order):
    labels = np.random.default_rng(2).integers(0, 10, count)
    given_labels = label_noise.flip_labels(labels, "asymmetric", rate, order, 0)
    becomes = {"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog"}
    becomes["dog"] = "cat"
    flipped = collections.Counter()
    for true, now in zip(labels, given_labels, strict=True):
        if true != now:
            assert becomes[order[true]] == order[now]
            flipped["all"] += 1
    confused = sum(order[label] in becomes for label in labels)
    assert flipped["all"] == round(rate * confused)


def test_asymmetric_noise_is_for_cifar10_only():
    with pytest.raises(data.DataError, match=r"CIFAR-10.*symmetric"):
        label_noise.flip_labels(np.zeros(3, int), "asymmetric", 0.4, list(shapes.SHAPES), 0)


def test_symmetric_noise_is_uniform_over_the_other_classes():
    labels = np.repeat(np.arange(5), 4000)
    given_labels = label_noise.flip_labels(labels, "symmetric", 0.5, names(5), 0)
    counts = np.zeros((5, 5))
    np.add.at(counts, (labels, given_labels), 1)
    others = counts[~np.eye(5, dtype=bool)]
    assert np.abs(others - 500).max() < 5 * 500**0.5
    assert np.abs(np.diag(counts) - 2000).max() < 5 * 1000**0.5


def test_noise_depends_on_the_seed_alone():
    labels = np.arange(500) % 10
    flips = [label_noise.flip_labels(labels, "pair", 0.4, NAMES, seed) for seed in (0, 0, 1)]
    assert np.array_equal(flips[0], flips[1]) and not np.array_equal(flips[0], flips[2])
    assert np.array_equal(label_noise.flip_labels(labels, "none", 0.4, NAMES, 0), labels)
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    shapes.draw_shapes(20, np.random.default_rng(0))
    assert state == np.random.get_state()[1].tolist()  # noqa: NPY002


# --- files ---

CLEAN = np.arange(30) % 10
WRONG = np.where(np.arange(30) % 3 == 0, (CLEAN + 3) % 10, CLEAN)


def write(path, content):
    if path.suffix == ".json":
        path.write_text(json.dumps(np.asarray(content).tolist()))
    elif path.suffix == ".npy":
        np.save(path, content)
    else:
        torch.save(content, path)
    return path


def human(**changes):
    """What CIFAR-10_human.pt holds: a dict of numpy arrays, true labels among them."""
    content = {"clean_label": CLEAN, "worse_label": WRONG, "aggre_label": CLEAN}
    content |= {f"random_label{k}": np.roll(WRONG, 10 * k) for k in (1, 2, 3)}
    return content | changes


@pytest.mark.parametrize("suffix", [".json", ".npy", ".pt"])
@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_a_list_of_labels(tmp_path, suffix, kind):
    path = write(tmp_path / f"labels{suffix}", WRONG.astype(kind))
    labels = label_noise.read_labels(path, None, CLEAN, 10)
    np.testing.assert_array_equal(labels, WRONG)
    assert labels.dtype == np.int64


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", ["worse_label", "aggre_label", "random_label1", "random_label3"])
def test_labels_of_cifar10n(tmp_path, name, zipped):
    path = tmp_path / "CIFAR-10_human.pt"
    torch.save(human(), path, _use_new_zipfile_serialization=zipped)
    np.testing.assert_array_equal(label_noise.read_labels(path, name, CLEAN, 10), human()[name])


def test_tensors_in_a_dict_and_numpys_old_names(tmp_path):
    path = write(tmp_path / "a.pt", {k: torch.from_numpy(v) for k, v in human().items()})
    np.testing.assert_array_equal(label_noise.read_labels(path, "worse_label", CLEAN, 10), WRONG)
    # numpy 1 wrote numpy.core, numpy 2 writes numpy._core: each reads the other's.
    torch.save(human(), path, _use_new_zipfile_serialization=False)
    raw = path.read_bytes()
    here, other = (b"numpy._core.", b"numpy.core.")[:: 1 if b"numpy._core." in raw else -1]
    assert here in raw
    path.write_bytes(raw.replace(here, other))
    np.testing.assert_array_equal(label_noise.read_labels(path, "worse_label", CLEAN, 10), WRONG)


class Foreign:
    def __reduce__(self):
        return os.mkdir, ("executed",)


SWAPPED = CLEAN.copy()
SWAPPED[[0, 1]] = SWAPPED[[1, 0]]  # a permutation: every sum and count is the same


@pytest.mark.parametrize(
    ("suffix", "content", "name", "words"),
    [
        (".json", WRONG[:-1], None, ["29 labels", "30"]),
        (".json", WRONG + 1, None, ["1 to 10", "0..9"]),
        (".npy", WRONG - 1, None, ["-1", "0..9"]),
        (".npy", WRONG.astype(float), None, ["float64", "integers"]),
        (".npy", WRONG[:, None], None, ["(30, 1)", "integers"]),
        (".npy", WRONG.astype(object), None, ["cannot be read"]),
        (".json", [], None, ["integers"]),
        (".json", WRONG, "worse_label", ["--labels", "one list"]),
        (".pt", human(), None, ["--labels", "worse_label", "random_label3"]),
        (".pt", human(), "best_label", ["best_label", "--labels", "worse_label"]),
        (".pt", human(), "clean_label", ["--labels", "worse_label"]),
        (".pt", human(clean_label=SWAPPED), "worse_label", ["true labels", "2 of 30"]),
        (".pt", human(worse_label=WRONG[:5]), "worse_label", ["worse_label", "5 labels"]),
        (".pt", human(other=Foreign()), "worse_label", ["cannot be read"]),
    ],
)
def test_wrong_files_are_refused(tmp_path, monkeypatch, suffix, content, name, words):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / f"labels{suffix}", content)
    with pytest.raises(data.DataError) as error:
        label_noise.read_labels(path, name, CLEAN, 10)
    message = str(error.value)
    assert all(word in message for word in [str(path), *words]), message
    assert "\n" not in message and not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["a.json", "a.npy", "a.pt", "a.txt"])
@pytest.mark.parametrize("raw", [b"", b"\x80\x02garbage", b"\xff\xfe{"])
def test_damaged_files_are_refused(tmp_path, name, raw):
    (tmp_path / name).write_bytes(raw)
    with pytest.raises(data.DataError, match="cannot be read"):
        label_noise.read_labels(tmp_path / name, None, CLEAN, 10)


def test_ragged_and_named_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[[1, 2], [3]]")
    with pytest.raises(data.DataError, match="integers"):
        label_noise.read_labels(path, None, CLEAN, 10)
    path.write_text(json.dumps({"noisy": WRONG.tolist(), "clean_label": CLEAN.tolist()}))
    np.testing.assert_array_equal(label_noise.read_labels(path, "noisy", CLEAN, 10), WRONG)
