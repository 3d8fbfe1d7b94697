"""Memorization of noisy labels without frequencies, and calibration: memorization.json.

Its curves are listed in docs/method.md. `memorization` and `calibration` take arrays of one's own.
"""

import numpy as np
from scipy.special import logsumexp, softmax
from scipy.stats import mannwhitneyu

from measures import RunArrays
from measures.parts import components, one_hot_predictions, part_coefficients, split_labels

BINS = 15  # of equal width, as in the tables of arXiv 1706.04599
TERCILES = ("low", "mid", "high")


def measure_memorization(run: RunArrays) -> dict:
    """The content of memorization.json: curves, and whether the transition is dropped."""
    curves = memorization(run.logits, run.clean, run.noisy)
    curves |= components(run.logits, run.clean, run.noisy, run.training_labels)
    classes = run.logits.shape[2]
    parts, dropped = split_labels(run.clean, run.noisy, classes, run.training_labels)
    for name, rows in zip(TERCILES, contrast_terciles(run.images), strict=True):
        curve = np.full(len(run.logits), np.nan)
        if len(rows):
            some = {part: values[rows] for part, values in parts.items()}
            outputs = (one_hot_predictions(epoch[rows]) for epoch in run.logits)
            curve = part_coefficients(some, outputs, dropped)["residual"]
        curves[f"one_hot_residual_contrast_{name}"] = curve
    error, confidence = calibration(run.test_logits, run.test_labels)
    curves |= {"test_calibration_error": error, "test_confidence": confidence}
    return {"curves": curves, "transition_dropped": bool(dropped)}


def memorization(logits: np.ndarray, clean: np.ndarray, noisy: np.ndarray) -> dict[str, np.ndarray]:
    """Two curves (epochs,) of training images: gap in percent, auc from 0 to 1.

    logits: (epochs, n, C); clean, noisy: integer labels (n,).

    gap: accuracy on the clean labels of the correctly minus that of the wrongly labeled images.
    auc: the chance that a wrong label has a higher loss than a right one, a tie counting half
    (Mann-Whitney). NaN where all labels are right, or all are wrong.
    """
    correct, wrong = logits.argmax(axis=2) == clean, clean != noisy
    if wrong.all() or not wrong.any():
        return dict.fromkeys(("gap", "auc"), np.full(len(logits), np.nan))
    gap = 100 * (correct[:, ~wrong].mean(axis=1) - correct[:, wrong].mean(axis=1))
    losses = label_losses(logits, noisy)
    # Only the statistic is used; the exact p-value of the automatic method can take minutes.
    test = mannwhitneyu(losses[:, wrong], losses[:, ~wrong], axis=1, method="asymptotic")
    return {"gap": gap, "auc": test.statistic / (wrong.sum() * (~wrong).sum())}


def label_losses(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy of each image's label, float64 nats (epochs, n).

    logits: (epochs, n, C); labels: (n,). It is log(1 + exp(d)) with d the log-sum-exp of the other
    classes' logits minus the label's, which keeps small losses apart: memorized images would be
    ties at 0 otherwise.
    """
    losses, rows = [], np.arange(len(labels))
    for epoch in logits:
        others = np.array(epoch, np.float64)
        own = others[rows, labels]
        others[rows, labels] = -np.inf
        losses.append(np.logaddexp(0, logsumexp(others, axis=1) - own))
    return np.array(losses)


def contrast_terciles(images: np.ndarray) -> list[np.ndarray]:
    """The indices of the images of low, middle and high contrast, a third each.

    images: uint8 (n, H, W, 3). The contrast is the standard deviation of an image's pixel values.
    """
    contrast = [image.std(dtype=np.float64) for image in images]
    return np.array_split(np.argsort(contrast, kind="stable"), len(TERCILES))


def calibration(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Expected calibration error and mean confidence, percent (epochs,) each.

    logits: (epochs, n, C); labels: (n,). The confidence is the softmax probability of the predicted
    class. The error is eq. 3 of Guo et al. (arXiv 1706.04599): the mean over the images of
    |accuracy - mean confidence| of the image's bin; bin m of 1..BINS holds the confidences in
    ((m - 1) / BINS, m / BINS].
    """
    upper = np.arange(1, BINS + 1) / BINS
    errors, means = [], []
    for epoch in logits:
        confidence = softmax(epoch.astype(np.float64), axis=1).max(axis=1)
        excess = (epoch.argmax(axis=1) == labels) - confidence
        errors.append(np.abs(np.bincount(np.searchsorted(upper, confidence), excess)).sum())
        means.append(confidence.mean())
    return 100 * np.array(errors) / len(labels), 100 * np.array(means)
