"""measures/memorization.py against hand-computed cases, double loops and plain formulas."""

import math

import numpy as np
import pytest
from references import learning_run, lstsq

from measures import memorization as mz
from measures.parts import components, label_parts, transition_matrix

CLEAN, NOISY = np.array([0, 1, 2, 0, 1, 2]), np.array([0, 1, 2, 0, 2, 0])


def certain(predictions):
    """Logits (epochs, n, 3) of these predictions."""
    return np.eye(3, dtype=np.float32)[np.array(predictions)]


def test_the_gap_by_hand():
    predictions = [
        [0, 1, 2, 0, 1, 2],  # every clean label: both accuracies are 100%
        [0, 1, 2, 0, 2, 0],  # every noisy label: 100% and 0%
        [0, 1, 0, 1, 1, 0],  # 2 of 4 and 1 of 2
        [0, 0, 2, 0, 2, 1],  # 3 of 4 and 0 of 2
    ]
    assert mz.memorization(certain(predictions), CLEAN, NOISY)["gap"].tolist() == [0, 100, 0, 75]


@pytest.mark.filterwarnings("error")  # a mean of nothing warns
@pytest.mark.parametrize("noisy", [CLEAN, (CLEAN + 1) % 3])
def test_curves_need_right_and_wrong_labels(noisy):
    curves = mz.memorization(certain(np.zeros((3, 6), int)), CLEAN, noisy)
    assert all(np.isnan(curves[name]).tolist() == [True] * 3 for name in ("gap", "auc"))


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
    before = logits.copy()
    np.testing.assert_allclose(mz.label_losses(logits, np.array([1, 0, 0]))[0, 0], 1e4)
    memorized = mz.label_losses(logits, np.array([2, 0, 0]))[0, 1:]
    np.testing.assert_allclose(memorized, np.exp([-50.0, -60.0]), rtol=1e-12)
    assert (logits == before).all()


@pytest.mark.parametrize("levels", [2, 10_000])  # of 2 logits most pairs are ties
def test_auc_against_a_double_loop(levels):
    random = np.random.default_rng(2)
    logits = random.integers(0, levels, (4, 60, 3)) / levels
    clean = np.arange(60) % 3
    noisy = np.where(random.random(60) < 0.3, (clean + 1) % 3, clean)
    found = mz.memorization(logits, clean, noisy)["auc"]
    wrong = clean != noisy
    for epoch, losses in enumerate(mz.label_losses(logits, noisy)):
        wins = [(a > b) + 0.5 * (a == b) for a in losses[wrong] for b in losses[~wrong]]
        assert found[epoch] == pytest.approx(np.mean(wins), abs=1e-12)


def slow_calibration_error(logits, labels, bins=15):
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


@pytest.mark.parametrize("scale", [0.3, 2, 20])
def test_calibration_against_a_slow_loop(scale):
    random = np.random.default_rng(0)
    logits = random.normal(0, scale, (3, 200, 6)).astype(np.float32)
    labels = np.where(random.random(200) < 0.5, logits[1].argmax(1), random.integers(0, 6, 200))
    error, confidence = mz.calibration(logits, labels)
    expected = [slow_calibration_error(epoch, labels) for epoch in logits]
    np.testing.assert_allclose(error, expected, rtol=1e-10)
    by_hand = [np.mean([1 / np.exp(z - z.max()).sum() for z in e.astype(float)]) for e in logits]
    np.testing.assert_allclose(confidence, 100 * np.array(by_hand), rtol=1e-12)


def test_the_content_of_memorization_json():
    run = learning_run(epochs=4)
    content = mz.measure_memorization(run)
    curves = content["curves"]
    assert content["transition_dropped"] is False
    expected = components(run.logits, run.clean, run.noisy, run.training_labels)
    names = {"gap", "auc", "test_calibration_error", "test_confidence"}
    terciles = {f"one_hot_residual_contrast_{name}" for name in ("low", "mid", "high")}
    assert curves.keys() == names | set(expected) | terciles
    assert {len(curve) for curve in curves.values()} == {4}
    for name, curve in expected.items():
        np.testing.assert_array_equal(curves[name], curve)
    assert curves["gap"][-1] > curves["gap"][0] + 20
    parts = label_parts(run.clean, run.noisy, transition_matrix(*run.training_labels, 4))
    order = np.argsort([image.std() for image in run.images])
    for name, rows in zip(("low", "mid", "high"), np.split(order, [20, 40]), strict=True):
        some = [part[rows] for part in parts.values()]
        for epoch, logits in enumerate(run.logits):
            target = np.eye(4)[logits.argmax(1)][rows]
            found = curves[f"one_hot_residual_contrast_{name}"][epoch]
            assert found == pytest.approx(lstsq(some, target)[2], abs=1e-9)


@pytest.mark.filterwarnings("error")
def test_two_images_have_undefined_values_and_no_warning():
    curves = mz.measure_memorization(learning_run(sample=2))["curves"]
    assert np.isnan(curves["one_hot_residual_contrast_high"]).all()
