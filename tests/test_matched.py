"""--matched: the class transitions of a label file, independent of the image."""

import collections
import itertools

import numpy as np
import pytest
from helpers import make_image_folder
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from dataset.data_file import read_dataset
from dataset.noise import match_transitions, transition_counts

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50)


@pytest.mark.slow
@given(LABELS, st.integers(0, 5))
def test_transition_counts_are_equal(pairs, seed):
    clean, noisy = np.array(pairs).T
    before = noisy.copy()
    matched = match_transitions(noisy, clean, seed)
    assert matched.dtype == np.int64
    np.testing.assert_array_equal(noisy, before)
    expected, counts = collections.Counter(pairs), collections.Counter()
    for label, other in zip(clean, matched, strict=True):
        counts[int(label), int(other)] += 1
    assert counts == expected
    np.testing.assert_array_equal(matched, match_transitions(noisy, clean, seed))


def test_all_orders_within_a_class_are_equally_likely():
    """Whatever the images' own labels: 24 orders, 2,400 seeds, a chi-squared test."""
    clean, noisy = np.array([1, 0, 1, 1, 1]), np.array([0, 2, 1, 2, 3])
    orders = collections.Counter()
    for seed in range(2400):
        matched = match_transitions(noisy, clean, seed)
        assert matched[1] == 2
        orders[tuple(matched[clean == 1].tolist())] += 1
    observed = [orders[order] for order in itertools.permutations(range(4))]
    assert sum(observed) == 2400 and stats.chisquare(observed).pvalue > 0.001


def write_hard_images(clean):
    """human.npy: of each class, the first third of the images is wrong."""
    noisy = clean.copy()
    for label in range(10):
        members = np.flatnonzero(clean == label)
        noisy[members[: len(members) // 3]] = (label + 1 + label % 3) % 10
    np.save("human.npy", noisy)


def test_the_matched_control_of_a_file(script, workplace):
    flags = ["--dataset", "shapes", "--train-size", 300, "--test-size", 20, "--val-size", 60]
    assert script("generate", *flags[:-2], "--noise", "none", "--out", "clean.npz")[0] == 0
    write_hard_images(read_dataset("clean.npz").clean_labels)
    flags += ["--noise", "human.npy"]
    assert script("generate", *flags)[0] == 0
    assert script("generate", *flags, "--matched")[0] == 0
    file, matched = (read_dataset(f"data/shapes-human{name}.npz") for name in ("", "-matched"))
    assert matched.meta["noise"] == "human-matched"
    assert matched.meta["transitions"] == file.meta["transitions"]
    assert matched.meta["rate_found"] == file.meta["rate_found"] > 0
    assert matched.meta["val_rate_found"] == file.meta["val_rate_found"] > 0
    np.testing.assert_array_equal(matched.train_images, file.train_images)
    np.testing.assert_array_equal(matched.test_labels, file.test_labels)
    assert sorted(matched.val_labels) == sorted(file.val_labels)
    # Which images are wrong is another draw: of two independent thirds a ninth is shared.
    wrong = [d.train_labels != d.clean_labels for d in (file, matched)]
    shared = np.sum(wrong[0] & wrong[1]) / len(wrong[0])
    assert np.mean(wrong[0]) == pytest.approx(1 / 3, abs=0.03)
    assert shared == pytest.approx(1 / 9, abs=0.05)


@pytest.mark.slow
def test_matching_a_part_of_the_images_matches_these(script, workplace):
    """Transitions are those of the chosen images, not of the whole file."""
    folder = make_image_folder(workplace / "photos", count=40, classes=list("abcdefghij"))
    write_hard_images(np.repeat(np.arange(10), 40))
    flags = ["--dataset", folder, "--train-size", 100, "--noise", "human.npy"]
    assert script("generate", *flags, "--out", "a.npz")[0] == 0
    assert script("generate", *flags, "--matched", "--out", "b.npz")[0] == 0
    counts = [
        transition_counts(d.clean_labels, d.train_labels, 10)
        for d in (read_dataset("a.npz"), read_dataset("b.npz"))
    ]
    np.testing.assert_array_equal(*counts)
    assert counts[0].sum() == 100


@pytest.mark.slow
def test_another_seed_is_another_draw(script, workplace):
    folder = make_image_folder(workplace / "photos", count=40, classes=list("abcdefghij"))
    write_hard_images(np.repeat(np.arange(10), 40))
    flags = ["--dataset", folder, "--noise", "human.npy", "--matched", "--seed"]
    for name, seed in (("a", 0), ("b", 1), ("c", 0)):
        assert script("generate", *flags, seed, "--out", f"{name}.npz")[0] == 0
    a, b, c = (read_dataset(f"{name}.npz") for name in "abc")
    assert a.meta["transitions"] == b.meta["transitions"]
    assert np.array_equal(a.train_labels, c.train_labels)
    assert not np.array_equal(a.train_labels, b.train_labels)


def test_a_noise_model_has_no_match(refused, workplace):
    message = refused("generate", "--dataset", "shapes", "--noise", "pair", "--matched")
    assert "--matched" in message and "--noise" in message
