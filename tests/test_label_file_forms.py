"""Label files as other projects publish them: CSV, file names, names of lists, another order."""

import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.errors import MAX_CHARACTERS, UserError
from dataset.data_file import read_dataset
from dataset.label_files import check_agreement, read_labels
from dataset.noise import chance_agreement, flip_labels

CLEAN = np.arange(30) % 10
NOISY = np.where(np.arange(30) % 3 == 0, (CLEAN + 3) % 10, CLEAN)
# A permutation: every sum and every count stays the same.
SWAPPED = np.concatenate((CLEAN[[1, 0]], CLEAN[2:]))
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def write_csv(path, header, *columns):
    """A CSV of columns of 30 cells, below a header unless it is None."""
    rows = zip(*columns, strict=True)
    lines = [] if header is None else [header]
    path.write_text("\n".join(lines + [",".join(map(str, row)) for row in rows]) + "\n")
    return path


def by_file_name(noisy=NOISY, clean=CLEAN, folder="/datasets/cifar10/train/", start=0) -> dict:
    """Confident learning's object: files of one class after the other, the index in front."""
    order = np.argsort(clean, kind="stable")
    names = [CLASSES[label] for label in clean]
    return {f"{folder}{names[k]}/{start + k}_{names[k]}.png": int(noisy[k]) for k in order}


# --- CSV ---

INDEX, FILES = range(30), [f"train/{k}.png" for k in range(30)]


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("label,label_noisy", (CLEAN, NOISY)),  # instance-dependent noise
        (",label,label_noisy", (INDEX, CLEAN, NOISY)),  # with the index that pandas writes
        (" label , label_noisy ", (CLEAN, NOISY)),
        ("label", (NOISY,)),
        ("noisy", (NOISY,)),
        ("file,noisy", (FILES, NOISY)),
        (None, (NOISY,)),
        (None, (CLEAN, NOISY)),
        (None, (INDEX, NOISY)),
        (None, (INDEX, CLEAN, NOISY)),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".CSV", ".txt"])
def test_csv(tmp_path, header, columns, suffix):
    path = write_csv(tmp_path / f"labels{suffix}", header, *columns)
    labels = read_labels(path, None, CLEAN, 10)
    np.testing.assert_array_equal(labels, NOISY)
    assert labels.dtype == np.int64


def test_csv_of_other_systems(tmp_path):
    path = write_csv(tmp_path / "a.csv", '"label","label_noisy"', CLEAN, NOISY)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    np.testing.assert_array_equal(read_labels(path, "label_noisy", CLEAN, 10), NOISY)


def test_csv_of_several_noisy_columns(tmp_path):
    path = write_csv(tmp_path / "a.csv", None, CLEAN, CLEAN, NOISY)
    np.testing.assert_array_equal(read_labels(path, "2", CLEAN, 10), NOISY)
    with pytest.raises(UserError, match=r"--labels with one of 1, 2$"):
        read_labels(path, None, CLEAN, 10)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label,label_noisy\n0,1\n1\n", "a line has 1 cells, another 2"),
        ("a,b\n0.5,x\n", "no column of integers"),
        ("label,label_noisy\n", "no column of integers"),
        ("\n\n", "no column of integers"),
        ("0,1\n1,1\n", "2 labels"),
    ],
)
def test_bad_csv_is_refused(tmp_path, text, words):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(UserError, match=words):
        read_labels(tmp_path / "a.csv", None, CLEAN, 10)


# --- Names of lists ---

CLEAN_NAMES = ["clean_label", "clean_labels", "clean_label_train", "true_label", "label"]


@pytest.mark.parametrize("name", CLEAN_NAMES)
@pytest.mark.parametrize("suffix", [".json", ".pt", ".csv"])
def test_clean_labels_are_compared_and_never_offered(tmp_path, name, suffix):
    def write(clean):
        path = tmp_path / f"labels{suffix}"
        if suffix == ".csv":
            return write_csv(path, f"{name},noisy", clean, NOISY)
        if suffix == ".json":
            path.write_text(json.dumps({name: clean.tolist(), "noisy": NOISY.tolist()}))
        else:
            torch.save({name: torch.from_numpy(clean), "noisy": NOISY}, path)
        return path

    for labels in (None, "noisy"):
        np.testing.assert_array_equal(read_labels(write(CLEAN), labels, CLEAN, 10), NOISY)
    with pytest.raises(UserError, match=r"--labels with one of noisy$"):
        read_labels(write(CLEAN), name, CLEAN, 10)
    with pytest.raises(UserError, match="differ from the data set's in 2 of 30 places"):
        read_labels(write(SWAPPED), None, CLEAN, 10)


def test_label_alone_is_noisy_and_beside_a_clean_list_too(tmp_path):
    path = tmp_path / "a.json"
    for content in ({"label": NOISY}, {"label": NOISY, "clean_label": CLEAN}):
        path.write_text(json.dumps({name: list(map(int, v)) for name, v in content.items()}))
        np.testing.assert_array_equal(read_labels(path, None, CLEAN, 10), NOISY)


def test_clean_labels_alone_are_no_noise(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"clean_label": CLEAN.tolist()}))
    for name in (None, "clean_label"):
        with pytest.raises(UserError, match="no noisy labels"):
            read_labels(tmp_path / "a.json", name, CLEAN, 10)


def test_cifar100n(tmp_path):
    random = np.random.default_rng(0)
    clean = random.integers(0, 100, 500)
    fine = flip_labels(clean, "symmetric", 0.4, [str(k) for k in range(100)], seed=0)
    content = {"clean_label": clean, "noisy_label": fine}
    content |= {"clean_coarse_label": clean // 5, "noisy_coarse_label": fine // 5}
    torch.save(content, tmp_path / "CIFAR-100_human.pt")
    labels = read_labels(tmp_path / "CIFAR-100_human.pt", "noisy_label", clean, 100)
    np.testing.assert_array_equal(labels, fine)
    with pytest.raises(UserError, match=r"--labels with one of noisy_label, noisy_coarse_label$"):
        read_labels(tmp_path / "CIFAR-100_human.pt", "clean_coarse_label", clean, 100)


# --- File names ---


@pytest.mark.parametrize("folder", ["", "/datasets/cifar10/train/", "C:\\cifar\\train\\"])
def test_file_names_with_an_index(tmp_path, folder):
    content = by_file_name(folder=folder)
    assert list(content.values()) != NOISY.tolist()  # the file's own order is another
    (tmp_path / "a.json").write_text(json.dumps(content))
    np.testing.assert_array_equal(read_labels(tmp_path / "a.json", None, CLEAN, 10), NOISY)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (by_file_name(clean=SWAPPED), "clean labels differ from the data set's in 2 of 30 places"),
        (by_file_name(start=1), "30 file names do not count 0, 1, 2"),
        (dict(list(by_file_name().items())[1:]), "do not count"),
        ({f"images/photo{k}.png": int(NOISY[k]) for k in range(30)}, "file names like 10008_"),
        ({f"{10**6 * k}/path": k % 10 for k in range(2_500)}, "file names like 10008_"),
    ],
)
def test_other_file_names_are_refused(tmp_path, content, words):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=words) as error:
        read_labels(tmp_path / "a.json", None, CLEAN, 10)
    assert len(str(error.value)) <= MAX_CHARACTERS


# --- Another order ---


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6))
def test_chance_agreement_against_all_permutations(pairs):
    clean, noisy = np.array(pairs).T
    every = [np.sum(clean == np.array(order)) for order in itertools.permutations(noisy)]
    mean, deviation = chance_agreement(clean, noisy, 4)
    assert mean == pytest.approx(np.mean(every))
    assert deviation == pytest.approx(np.std(every), abs=1e-7)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_labels_in_another_order_are_refused(tmp_path, classes):
    random = np.random.default_rng(classes)
    clean = np.sort(random.integers(0, classes, 5000))
    names = [str(k) for k in range(classes)]
    noisy = flip_labels(clean, "symmetric", 0.4, names, seed=0)
    check_agreement(tmp_path, noisy, clean, classes)
    for seed in range(20):
        other = np.random.default_rng(seed).permutation(noisy)
        with pytest.raises(UserError, match=r"no better than chance .*--accept-chance-labels"):
            check_agreement(tmp_path, other, clean, classes)


def test_four_standard_errors_are_the_limit(tmp_path):
    clean = np.arange(1000) % 10
    mean, deviation = chance_agreement(clean, clean, 10)
    limit = int(mean + 4 * deviation)
    # Equal counts of each label in both lists, and just so many places that agree.
    for agree, refused in ((limit, True), (limit + 1, False)):
        noisy = np.roll(clean, 1)
        members = np.arange(0, 1000, 10)
        for label in range(10):
            share = agree // 10 + (label < agree % 10)
            noisy[members[:share] + label] = label
        assert np.sum(noisy == clean) == agree
        try:
            check_agreement(tmp_path, noisy, clean, 10)
            assert not refused
        except UserError:
            assert refused


def test_much_noise_passes(tmp_path):
    clean = np.arange(50_000) % 10
    for seed in range(3):
        noisy = flip_labels(clean, "symmetric", 0.8, CLASSES, seed)
        check_agreement(tmp_path, noisy, clean, 10)


def test_chance_labels_are_taken_on_demand(script, refused, workplace):
    np.save("other.npy", np.random.default_rng(0).integers(0, 10, 200))
    flags = ["--dataset", "shapes", "--train-size", 200, "--noise", "other.npy"]
    message = refused("generate", *flags)
    assert "--accept-chance-labels" in message and "other.npy" in message
    assert [path.name for path in (workplace / "data").iterdir()] == ["small.npz"]
    assert script("generate", *flags, "--accept-chance-labels")[0] == 0
    labels = read_dataset("data/shapes-other.npz").train_labels
    np.testing.assert_array_equal(labels, np.load("other.npy"))
    message = refused("generate", "--dataset", "shapes", "--accept-chance-labels")
    assert "--accept-chance-labels" in message and "--noise" in message
