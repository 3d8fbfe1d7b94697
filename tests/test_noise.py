"""dataset/noise.py: what each noise model flips, matched noise, chance, names."""

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from common.command_line import UserError
from dataset import noise as noise_module
from dataset.noise import (
    CIFAR10_CLASSES,
    NOISES,
    chance_agreement,
    chance_probability,
    flip_labels,
    match_transitions,
    noise_title,
    transition_counts,
)
from dataset.shapes import SHAPES

COUNTS, RATES = st.integers(1, 300), st.floats(0, 1)
CIFAR10 = list(CIFAR10_CLASSES)
# Written down once more: the literature's map.
LOOK_ALIKE = {"truck": "automobile", "bird": "airplane", "deer": "horse"}
LOOK_ALIKE |= {"cat": "dog", "dog": "cat"}


def class_names(count):
    return [f"class {k}" for k in range(count)]


def random_labels(count, classes=10, seed=1):
    return np.random.default_rng(seed).integers(0, classes, count)


@pytest.mark.slow
@given(COUNTS, RATES, st.integers(2, 12), st.sampled_from(["pair", "symmetric"]), st.integers(0, 9))
def test_exactly_the_rate_is_wrong(count, rate, classes, noise, seed):
    clean = random_labels(count, classes)
    noisy = flip_labels(clean, noise, rate, class_names(classes), seed)
    assert np.sum(noisy != clean) == round(rate * count)
    assert noisy.dtype == np.int64
    assert noisy.min() >= 0 and noisy.max() < classes
    if noise == "pair":
        wrong = noisy != clean
        np.testing.assert_array_equal(noisy[wrong], (clean[wrong] + 1) % classes)


@given(COUNTS, RATES, RATES, st.sampled_from(["pair", "symmetric", "asymmetric"]))
def test_labels_wrong_at_a_lower_rate_are_wrong_at_a_higher(count, first, second, noise):
    clean = random_labels(count)
    low, high = (flip_labels(clean, noise, rate, CIFAR10, 0) for rate in sorted((first, second)))
    wrong = low != clean
    np.testing.assert_array_equal(low[wrong], high[wrong])


@given(COUNTS, RATES, st.permutations(CIFAR10))
def test_asymmetric_noise_flips_the_rate_of_five_classes(count, rate, names):
    clean = random_labels(count, seed=2)
    noisy = flip_labels(clean, "asymmetric", rate, names, 0)
    flips = [(names[a], names[b]) for a, b in zip(clean, noisy, strict=True) if a != b]
    assert all(LOOK_ALIKE[before] == after for before, after in flips)
    assert len(flips) == round(rate * sum(names[label] in LOOK_ALIKE for label in clean))


def test_asymmetric_noise_is_for_cifar10_only():
    with pytest.raises(UserError, match=r"CIFAR-10.*symmetric"):
        flip_labels(np.zeros(3, int), "asymmetric", 0.4, list(SHAPES), 0)


def test_symmetric_noise_is_uniform_over_the_other_classes():
    clean = np.repeat(np.arange(5), 4000)
    counts = transition_counts(clean, flip_labels(clean, "symmetric", 0.5, class_names(5), 0), 5)
    others = counts[~np.eye(5, dtype=bool)]
    # Five standard deviations of the Poisson distributions that these counts come close to.
    assert np.abs(others - 500).max() < 5 * 500**0.5
    assert np.abs(np.diag(counts) - 2000).max() < 5 * 1000**0.5


@pytest.mark.parametrize("noise", [name for name in NOISES if name != "none"])
def test_noise_depends_on_the_seed_alone(noise):
    clean = random_labels(500)
    before = clean.copy()
    first, again, other = (flip_labels(clean, noise, 0.4, CIFAR10, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.array_equal(clean, before)


@given(COUNTS, st.integers(2, 12))
def test_transition_counts_against_a_loop(count, classes):
    clean, noisy = random_labels(count, classes, 1), random_labels(count, classes, 2)
    expected = np.zeros((classes, classes), int)
    for before, after in zip(clean, noisy, strict=True):
        expected[before, after] += 1
    np.testing.assert_array_equal(transition_counts(clean, noisy, classes), expected)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50))
def test_matching_keeps_the_transition_counts(pairs):
    clean, noisy = np.array(pairs).T
    before = noisy.copy()
    matched = match_transitions(noisy, clean, 0)
    np.testing.assert_array_equal(noisy, before)
    counts = [collections.Counter(zip(clean, y, strict=True)) for y in (noisy, matched)]
    assert matched.dtype == np.int64 and counts[0] == counts[1]
    np.testing.assert_array_equal(matched, match_transitions(noisy, clean, 0))


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


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=6))
def test_chance_against_all_permutations(pairs):
    clean, noisy = np.array(pairs).T
    every = [np.sum(clean == np.array(order)) for order in itertools.permutations(noisy)]
    mean, deviation = chance_agreement(clean, noisy, 4)
    assert mean == pytest.approx(np.mean(every))
    assert deviation == pytest.approx(np.std(every), abs=1e-7)
    as_well = np.mean(np.array(every) >= np.sum(clean == noisy))
    assert chance_probability(clean, noisy, 4) == pytest.approx(as_well)


def test_chance_of_two_classes_is_hypergeometric():
    clean = np.arange(40) % 2
    noisy = np.where(np.arange(40) < 8, 1 - clean, clean)  # 16 of 20 agree in either class
    expected = stats.hypergeom(40, 20, 20).sf(15)
    assert chance_probability(clean, noisy, 2) == pytest.approx(expected)
    assert expected == pytest.approx(0.00018, rel=0.01)


def test_the_normal_approximation_meets_the_exact_chance(monkeypatch):
    clean = np.arange(500) % 10
    noisy = np.where(np.arange(500) < 430, (clean + 1) % 10, clean)
    exact = chance_probability(clean, noisy, 10)
    monkeypatch.setattr(noise_module, "EXACT", 0)
    assert chance_probability(clean, noisy, 10) == pytest.approx(exact, rel=0.5)
    assert chance_probability(0 * clean, 0 * noisy, 10) == 1


@pytest.mark.parametrize(
    ("noise", "rate", "title"),
    [
        ("pair", 0.4, "pair flip, 40% wrong"),
        ("symmetric", 0.123456, "symmetric, 12.3% wrong"),
        ("CIFAR-10_human-worse_label", 0.40208, "human (CIFAR-10N), 40.2% wrong"),
        ("CIFAR-10_human-worse_label-matched", 0.40208, "human, matched, 40.2% wrong"),
        ("labels", 0, "labels, 0% wrong"),
    ],
)
def test_titles(noise, rate, title):
    assert noise_title({"noise": noise, "rate_found": rate}) == title
