"""analysis/memorization.py against hand-computed cases, double loops and plain formulas."""

import math

import numpy as np
import pytest

from analysis import memorization as mz

CLEAN, NOISY = np.array([0, 1, 2, 0, 1, 2]), np.array([0, 1, 2, 0, 2, 0])


def test_memorization_gap_by_hand():
    predictions = np.array(
        [
            [0, 1, 2, 0, 1, 2],  # every clean label: both accuracies are 100%
            [0, 1, 2, 0, 2, 0],  # every noisy label: 100% and 0%
            [0, 1, 0, 1, 1, 0],  # 2 of 4 and 1 of 2
            [0, 0, 2, 0, 2, 1],  # 3 of 4 and 0 of 2; an ordinary error is no memorized label
        ]
    )
    assert mz.memorization_gap(predictions, CLEAN, NOISY).tolist() == [0, 100, 0, 75]


@pytest.mark.filterwarnings("error")  # a mean of nothing warns
def test_gap_needs_right_and_wrong_labels():
    predictions = np.zeros((3, 6), int)
    for noisy in (CLEAN, (CLEAN + 1) % 3):
        assert np.isnan(mz.memorization_gap(predictions, CLEAN, noisy)).tolist() == [True] * 3
        assert np.isnan(mz.gap_standard_error(predictions, CLEAN, noisy)).tolist() == [True] * 3


def test_gap_standard_error_by_hand():
    predictions = np.array([CLEAN, [0, 1, 2, 1, 2, 0]])  # 6 and 3 of 6; 4 right and 2 wrong labels
    expected = [0, 100 * math.sqrt(0.5 * 0.5 * (1 / 4 + 1 / 2))]
    np.testing.assert_allclose(mz.gap_standard_error(predictions, CLEAN, NOISY), expected)


def test_gap_standard_error_is_that_of_predictions_that_ignore_the_noise():
    random = np.random.default_rng(0)
    clean = random.integers(0, 10, 1000)
    noisy = np.where(random.random(1000) < 0.4, (clean + 1) % 10, clean)
    correct = random.random((4000, 1000)) < 0.7
    predictions = np.where(correct, clean, (clean + 5) % 10)
    gap = mz.memorization_gap(predictions, clean, noisy)
    error = mz.gap_standard_error(predictions, clean, noisy)
    # 4,000 draws: their standard deviation is known to 1 / sqrt(8,000), four of which are 4.5%.
    assert gap.std() == pytest.approx(error.mean(), rel=4 / math.sqrt(8000))
    assert gap.mean() == pytest.approx(0, abs=4 * error.mean() / math.sqrt(4000))


def test_accuracy_at_gap_by_hand():
    accuracy, gap = np.array([30.0, 40, 50, 45]), np.array([-1.0, 2, 12, 10])
    assert mz.accuracy_at_gap(accuracy, gap, 7) == pytest.approx(45)
    assert mz.accuracy_at_gap(accuracy, gap, 0.5) == pytest.approx(35)
    assert mz.accuracy_at_gap(accuracy, gap, 12) == 50
    assert mz.accuracy_at_gap(accuracy, gap, 11) == pytest.approx(49)  # the first time, not later
    assert mz.accuracy_at_gap(accuracy, gap, -1) == 30
    assert mz.accuracy_at_gap(accuracy, gap, 12.5) is None
    assert mz.accuracy_at_gap(accuracy, gap, -3) is None  # over it before the first record
    assert mz.accuracy_at_gap(accuracy, np.full(4, np.nan), 5) is None


def test_best_before_memorization_by_hand():
    accuracy, gap = np.array([30.0, 42, 40, 60]), np.array([0.5, 1, 1.5, 9])
    assert mz.best_before_memorization(accuracy, gap, 2) == (1, 42)
    assert mz.best_before_memorization(accuracy, gap, 1) == (1, 42)  # exceeds, not reaches
    assert mz.best_before_memorization(accuracy, gap, 0.7) == (0, 30)
    assert mz.best_before_memorization(accuracy, gap, 10) == (3, 60)
    assert mz.best_before_memorization(accuracy, gap, 0.2) is None
    assert mz.best_before_memorization(accuracy, gap, np.array([1, 0.9, 9, 9])) == (0, 30)
    # Without wrong labels the gap is NaN and nothing can be memorized.
    assert mz.best_before_memorization(accuracy, np.full(4, np.nan), np.full(4, np.nan)) == (3, 60)


def test_label_losses_against_a_double_loop():
    random = np.random.default_rng(1)
    logits, labels = random.normal(0, 3, (3, 8, 5)).astype(np.float32), random.integers(0, 5, 8)
    found = mz.label_losses(logits, labels)
    assert found.dtype == np.float64
    for epoch in range(3):
        for image in range(8):
            z = [float(x) for x in logits[epoch, image]]
            probability = math.exp(z[labels[image]]) / math.fsum(math.exp(x) for x in z)
            assert found[epoch, image] == pytest.approx(-math.log(probability), rel=1e-12)


def test_label_losses_of_large_logits_are_finite_and_small_ones_distinct():
    logits = np.array([[[1e4, 0, -1e4], [50, 0, -1e4], [60, 0, -1e4]]], np.float32)
    np.testing.assert_allclose(mz.label_losses(logits, np.array([1, 0, 0]))[0, 0], 1e4)
    memorized = mz.label_losses(logits, np.array([2, 0, 0]))[0, 1:]
    np.testing.assert_allclose(memorized, np.exp([-50.0, -60.0]), rtol=1e-12)


def test_label_losses_leave_the_logits_alone():
    logits = np.ones((1, 2, 3))
    mz.label_losses(logits, np.array([0, 1]))
    assert (logits == 1).all()


@pytest.mark.parametrize("levels", [3, 10_000])  # of 3 levels most pairs are ties
def test_noisy_label_auc_against_a_double_loop(levels):
    random = np.random.default_rng(2)
    losses, is_noisy = random.integers(0, levels, (4, 60)) / 7, random.random(60) < 0.3
    found = mz.noisy_label_auc(losses, is_noisy)
    for epoch in range(4):
        wins = [
            (a > b) + 0.5 * (a == b)
            for a in losses[epoch, is_noisy]
            for b in losses[epoch, ~is_noisy]
        ]
        assert found[epoch] == pytest.approx(np.mean(wins), abs=1e-12)


def test_noisy_label_auc_of_perfect_useless_and_impossible_cases():
    is_noisy = np.array([False, True, False, True])
    losses = np.array([[0.1, 2, 0.2, 3], [2, 0.1, 3, 0.2], [1, 1, 1, 1]])
    assert mz.noisy_label_auc(losses, is_noisy).tolist() == [1, 0, 0.5]
    for same in (np.zeros(4, bool), np.ones(4, bool)):
        assert np.isnan(mz.noisy_label_auc(losses, same)).tolist() == [True] * 3
