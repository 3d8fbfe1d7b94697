"""analysis/calibration.py against a slow loop over images and bins, and cases by hand."""

import numpy as np
import pytest

from analysis import calibration


def slow_error(logits, labels, bins=15):
    """Eq. 3 of arXiv 1706.04599 as written: a sum over bins of (m - 1, m] / bins."""
    probabilities = [np.exp(z - z.max()) / np.exp(z - z.max()).sum() for z in logits.astype(float)]
    error = 0
    for m in range(1, bins + 1):
        inside = [
            (p.max(), p.argmax() == label)
            for p, label in zip(probabilities, labels, strict=True)
            if (m - 1) / bins < p.max() <= m / bins
        ]
        if inside:
            confidence, correct = np.mean(inside, axis=0)
            error += len(inside) / len(labels) * abs(correct - confidence)
    return 100 * error


def logits_of(probabilities):
    """Logits (1, n, C) whose softmax is `probabilities` (n, C)."""
    return np.log(np.array([probabilities]))


@pytest.mark.parametrize("scale", [0.3, 2, 20])
@pytest.mark.parametrize("bins", [1, 7, 15])
def test_calibration_error_against_a_slow_loop(scale, bins):
    random = np.random.default_rng(0)
    logits = random.normal(0, scale, (3, 200, 6)).astype(np.float32)
    labels = np.where(random.random(200) < 0.5, logits[1].argmax(1), random.integers(0, 6, 200))
    found = calibration.expected_calibration_error(logits, labels, bins)
    expected = [slow_error(epoch, labels, bins) for epoch in logits]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    confidence = calibration.mean_confidence(logits)
    by_hand = [np.mean([1 / np.exp(z - z.max()).sum() for z in e.astype(float)]) for e in logits]
    np.testing.assert_allclose(confidence, 100 * np.array(by_hand), rtol=1e-12)


def test_calibration_error_by_hand():
    logits = logits_of([[0.9, 0.1], [0.9, 0.1], [0.62, 0.38], [0.38, 0.62]])
    # Bins of 0.9 (1 of 2 correct: |0.5 - 0.9|) and of 0.62 (2 of 2: |1 - 0.62|), half each.
    error = calibration.expected_calibration_error(logits, np.array([0, 1, 0, 1]))
    assert error[0] == pytest.approx(100 * (0.4 + 0.38) / 2)
    assert calibration.mean_confidence(logits)[0] == pytest.approx(100 * (0.9 + 0.62) / 2)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    logits = logits_of([[0.5, 0.5], [0.75, 0.25]])
    # In (0, 1/2] the first is right: 0.5; in (1/2, 1] the second is wrong: 0.75. Together: 0.125.
    error = calibration.expected_calibration_error(logits, np.array([0, 1]), bins=2)
    assert error[0] == pytest.approx(100 * (0.5 + 0.75) / 2)


def test_fifteen_bins_unless_asked_otherwise():
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, (1, 100, 4))
    # Half of them right at any confidence: bins err in both directions, so their number matters.
    labels = (logits[0].argmax(axis=1) + random.integers(0, 2, 100)) % 4
    found = calibration.expected_calibration_error(logits, labels)
    assert found[0] == pytest.approx(slow_error(logits[0], labels, 15))


def test_errors_of_opposite_sign_cancel_within_a_bin_only():
    logits = logits_of([[0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.8, 0.2], [0.8, 0.2]])
    labels = np.array([0, 0, 0, 0, 1])  # 80% correct at 80% confidence
    assert calibration.expected_calibration_error(logits, labels)[0] == pytest.approx(0, abs=1e-10)


def test_certain_predictions_of_large_logits():
    logits = np.array([[[1e4, 0, 0], [0, 1e4, 0]]], np.float32)
    assert calibration.expected_calibration_error(logits, np.array([0, 1]))[0] == 0
    assert calibration.expected_calibration_error(logits, np.array([0, 2]))[0] == 50
    assert calibration.mean_confidence(logits)[0] == 100
