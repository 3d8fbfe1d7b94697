"""Memorization of noisy labels without frequencies: gap, detection by loss, equal-gap accuracy."""

import numpy as np
from scipy.special import logsumexp
from scipy.stats import rankdata

# Points: a gap that is still small. Two standard errors, under 3 points at 5,000 images, would end
# the time before memorization in the second epoch.
SMALL_GAP = 10


def memorization_gap(predictions: np.ndarray, clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """Accuracy on correctly labeled minus that on wrongly labeled images, in points (epochs,).

    predictions: classes (epochs, n) on training images; clean, noisy: labels (n,). Both accuracies
    are on the clean labels. Where the noise depends on neither class nor image the gap is 0 without
    memorization, up to gap_standard_error. Human noise starts above 0: people mislabel classes and
    images that are harder for a network too. NaN if all labels are right, or all are wrong.
    """
    correct, wrong = predictions == clean, clean != noisy
    if wrong.all() or not wrong.any():
        return np.full(len(predictions), np.nan)
    return 100 * (correct[:, ~wrong].mean(axis=1) - correct[:, wrong].mean(axis=1))


def gap_standard_error(predictions: np.ndarray, clean: np.ndarray, noisy: np.ndarray) -> np.ndarray:
    """Binomial standard error of memorization_gap under no memorization, points (epochs,).

    Arguments as of memorization_gap. Without memorization both accuracies estimate one rate p, that
    of all images: 100 sqrt(p (1 - p) (1 / correctly labeled + 1 / wrongly labeled)). NaN likewise.
    """
    wrong = int((clean != noisy).sum())
    right = len(clean) - wrong
    if not wrong or not right:
        return np.full(len(predictions), np.nan)
    rate = (predictions == clean).mean(axis=1)
    return 100 * np.sqrt(rate * (1 - rate) * (1 / right + 1 / wrong))


def accuracy_at_gap(accuracy: np.ndarray, gap: np.ndarray, level: float) -> float | None:
    """Test accuracy where the gap first reaches `level`: accuracy and gap are curves (epochs,).

    Linear between that epoch and the one before. None if the gap never reaches the level, or
    exceeds it after the first epoch already, so that there is no epoch before.
    """
    reached = np.flatnonzero(np.asarray(gap) >= level)
    if not len(reached):
        return None
    k = int(reached[0])
    if gap[k] == level:
        return float(accuracy[k])
    if k == 0:
        return None
    part = (level - gap[k - 1]) / (gap[k] - gap[k - 1])
    return float(accuracy[k - 1] + part * (accuracy[k] - accuracy[k - 1]))


def best_before_memorization(
    accuracy: np.ndarray, gap: np.ndarray, threshold: np.ndarray | float
) -> tuple[int, float] | None:
    """The best test accuracy before the gap exceeds `threshold`: its epoch's index, and its value.

    accuracy, gap: curves (epochs,); threshold: points, one number or (epochs,). All epochs
    count where the gap never exceeds the threshold; None where it does in the first.
    """
    exceeds = np.flatnonzero(np.asarray(gap) > threshold)
    before = accuracy[: exceeds[0]] if len(exceeds) else accuracy
    if not len(before):
        return None
    best = int(np.argmax(before))
    return best, float(before[best])


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


def noisy_label_auc(losses: np.ndarray, is_noisy: np.ndarray) -> np.ndarray:
    """Area under the ROC curve for finding the wrong labels by their loss (epochs,), 0 to 1.

    losses: label_losses of the noisy labels (epochs, n); is_noisy: bool (n,). It is the chance
    that a wrong label has a higher loss than a right one, a tie counting half (Mann-Whitney, by
    midranks). 1: the loss finds every wrong label; 0.5: it tells nothing, as when all labels are
    memorized. NaN where all labels are right, or all wrong.
    """
    wrong = int(is_noisy.sum())
    right = len(is_noisy) - wrong
    if not wrong or not right:
        return np.full(len(losses), np.nan)
    ranks = rankdata(losses, axis=1)[:, is_noisy].sum(axis=1)
    return (ranks - wrong * (wrong + 1) / 2) / (wrong * right)
