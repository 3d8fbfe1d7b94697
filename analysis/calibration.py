"""How far a network's confidence is from its accuracy (Guo et al., arXiv 1706.04599)."""

import numpy as np
from scipy.special import softmax

BINS = 15  # of equal width, as in the paper's tables


def confidences(logits: np.ndarray) -> np.ndarray:
    """Softmax probability of the predicted class, float64 (epochs, n), of logits (epochs, n, C)."""
    return np.array([softmax(epoch.astype(np.float64), axis=1).max(axis=1) for epoch in logits])


def mean_confidence(logits: np.ndarray) -> np.ndarray:
    """Mean softmax probability of the predicted class, percent (epochs,)."""
    return 100 * confidences(logits).mean(axis=1)


def expected_calibration_error(
    logits: np.ndarray, labels: np.ndarray, bins: int = BINS
) -> np.ndarray:
    """Expected calibration error, percent (epochs,): eq. 3 of the paper.

    logits: (epochs, n, C); labels: (n,). The mean over the images of |accuracy - mean confidence|
    of the image's bin; bin m of 1..bins holds the confidences in ((m - 1) / bins, m / bins].
    """
    upper = np.arange(1, bins + 1) / bins
    errors = []
    for confidence, epoch in zip(confidences(logits), logits, strict=True):
        excess = (epoch.argmax(axis=1) == labels) - confidence
        errors.append(np.abs(np.bincount(np.searchsorted(upper, confidence), excess)).sum())
    return 100 * np.array(errors) / len(labels)
