"""What a network learned of noisy labels: clean classes, class transition, per-instance residual.

With Y the clean labels as one-hot vectors, the noise N = onehot(noisy) - Y splits into

    B = E[N | clean class]    class transition: row of T - I of the image's clean class
    E = N - B                 per-instance residual: what no function of the clean class can predict

T is the class transition matrix, estimated on the whole training set. The coefficients of a
network are the least-squares coefficients of its centered outputs on the centered Y, B and E.
docs/method.md says what they tell. `components` computes them from arrays of one's own.
"""

from collections.abc import Iterable

import numpy as np
from scipy.special import softmax

from dataset.noise import transition_counts

PARTS = ("clean", "transition", "residual")
NEGLIGIBLE = 1e-20  # a part with less than this share of the energy is zero up to rounding
DEPENDENT = 1e-6  # smallest eigenvalue of the parts' correlations: above what float32 sums lose
# Ratio of energies, see transition_evidence. Simulated symmetric noise of 3 to 100 classes and
# 1,000 to 50,000 images stays below 3. At 10,000 images pair noise of 40% has 297 with 10 classes
# and 34 with 100, human labels have 17 to 43.
ENOUGH_EVIDENCE = 10

Labels = tuple[np.ndarray, np.ndarray]  # clean and noisy, integers (N,)


def components(
    logits: np.ndarray, clean: np.ndarray, noisy: np.ndarray, training_labels: Labels | None = None
) -> dict[str, np.ndarray]:
    """The coefficients of softmax outputs and of one-hot predictions on Y, B and E, by epoch.

    logits: (epochs, n, C) of training images; clean, noisy: integer labels (n,); training_labels:
    the clean and the noisy labels of the whole training set, on which T is estimated, if the n
    images are a sample of it.

    Returns curves (epochs,): softmax_clean, softmax_transition, softmax_residual, one_hot_clean,
    one_hot_transition, one_hot_residual. NaN for a part that is zero or dropped.
    """
    parts, dropped = split_labels(clean, noisy, logits.shape[2], training_labels)
    outputs = {
        "softmax": (softmax(epoch, axis=1) for epoch in logits),
        "one_hot": (one_hot_predictions(epoch) for epoch in logits),
    }
    return {
        f"{kind}_{part}": curve
        for kind, values in outputs.items()
        for part, curve in part_coefficients(parts, values, dropped).items()
    }


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Integer labels (n,) -> float64 (n, classes)."""
    return np.eye(classes)[labels]


def one_hot_predictions(logits: np.ndarray) -> np.ndarray:
    """float32 (..., C): 1 for the predicted class of logits (..., C)."""
    return np.eye(logits.shape[-1], dtype=np.float32)[logits.argmax(axis=-1)]


def transition_matrix(clean: np.ndarray, noisy: np.ndarray, classes: int) -> np.ndarray:
    """T (classes, classes): T[c, k] is the fraction of the images of class c with noisy label k.

    clean, noisy: integer labels (N,) of the whole training set. A class without images has the
    identity's row.
    """
    counts = transition_counts(clean, noisy, classes)
    totals = counts.sum(axis=1, keepdims=True)
    return np.where(totals > 0, counts / np.maximum(totals, 1), np.eye(classes))


def label_parts(
    clean: np.ndarray, noisy: np.ndarray, transition: np.ndarray
) -> dict[str, np.ndarray]:
    """The parts Y, B and E of the noisy labels, (n, C) each; they add up to onehot(noisy).

    clean, noisy: integer labels (n,) of a sample; transition: T (C, C).
    """
    identity = np.eye(len(transition))
    return {
        "clean": identity[clean],
        "transition": (transition - identity)[clean],
        "residual": identity[noisy] - transition[clean],
    }


def split_labels(
    clean: np.ndarray, noisy: np.ndarray, classes: int, training_labels: Labels | None = None
) -> tuple[dict[str, np.ndarray], bool]:
    """The parts of a sample's noisy labels, and whether B is dropped because it is collinear.

    Without B the coefficient of Y includes the transition, so that the decision is one for a data
    set: it must not change from band to band. Arguments as in `components`.
    """
    all_clean, all_noisy = (clean, noisy) if training_labels is None else training_labels
    transition = transition_matrix(all_clean, all_noisy, classes)
    dropped = transition_evidence(all_clean, transition) < ENOUGH_EVIDENCE
    return label_parts(clean, noisy, transition), dropped


def transition_evidence(clean: np.ndarray, transition: np.ndarray) -> float:
    """How many times more energy tells B from Y than the finite data set alone would give.

    clean: integer labels (N,) of the whole training set that `transition` is estimated on.

    Centered B of symmetric noise is a multiple of centered Y, but an estimate of T scatters, so B
    has a small remainder beside Y. The result is the remainder's energy divided by that of the
    scatter: T[c, k] of a class with n_c images has the variance T[c, k] (1 - T[c, k]) / n_c. It is
    about 1 for symmetric noise; 0 where B is zero or exactly collinear with Y.
    """
    identity, counts = np.eye(len(transition)), np.bincount(clean, minlength=len(transition))
    weights = counts[:, None] / counts.sum()
    shift, label = transition - identity, identity - weights.T
    shift = shift - (weights * shift).sum(axis=0)
    slope = (weights * shift * label).sum() / max((weights * label * label).sum(), NEGLIGIBLE)
    remainder = (weights * (shift - slope * label) ** 2).sum()
    if remainder <= 1e-12 * (weights * shift**2).sum():
        return 0.0
    scatter = (transition * (1 - transition)).sum() / counts.sum()
    return float(remainder / scatter) if scatter else np.inf


def coefficients(
    gram: np.ndarray, products: np.ndarray, transition_dropped: bool, total: float | None = None
) -> np.ndarray:
    """The least-squares coefficients of V outputs on Y, B and E, from inner products: (3, V, ...).

    gram: (3, 3, ...) inner products of the centered parts in the order of PARTS; products:
    (3, V, ...) those of the parts with the outputs. Trailing axes, such as bands, are solved one by
    one. transition_dropped: leave B out. total: unfiltered energy of the clean part, beside which a
    part counts as zero; by default the largest energy in `gram`.

    NaN for a part that is dropped or zero, and for all parts where they are linearly dependent.
    """
    gram = np.moveaxis(np.asarray(gram, np.float64), (0, 1), (-2, -1))
    products = np.moveaxis(np.asarray(products, np.float64), (0, 1), (-2, -1))
    energies = np.diagonal(gram, axis1=-2, axis2=-1)
    present = energies > NEGLIGIBLE * (energies.max() if total is None else total)
    present &= [True, not transition_dropped, True]
    norms = np.sqrt(np.where(present, energies, 1))[..., None]
    # A missing part becomes an equation of its own, so that one call solves all trailing axes.
    pairs = present[..., :, None] & present[..., None, :]
    correlations = np.where(pairs, gram / norms / np.swapaxes(norms, -1, -2), np.eye(3))
    solvable = np.linalg.eigvalsh(correlations)[..., :1] > DEPENDENT
    correlations = np.where(solvable[..., None], correlations, np.eye(3))
    solution = np.linalg.solve(correlations, products / norms) / norms
    solution = np.where((present & solvable)[..., None], solution, np.nan)
    return np.moveaxis(solution, (-2, -1), (0, 1))


def part_coefficients(
    parts: dict[str, np.ndarray], outputs: Iterable[np.ndarray], transition_dropped: bool
) -> dict[str, np.ndarray]:
    """The unfiltered coefficients on each part, (epochs,) each.

    parts: (n, C) each, of label_parts; outputs: (n, C) of each epoch, probabilities or one-hot.
    """
    centered = np.stack([parts[name] - parts[name].mean(axis=0) for name in PARTS])
    flat = centered.reshape(len(PARTS), -1)
    # <centered part, outputs> = <centered part, centered outputs>, so the outputs stay as they are.
    columns = [flat @ np.asarray(epoch, np.float64).ravel() for epoch in outputs]
    found = coefficients(flat @ flat.T, np.stack(columns, axis=1), transition_dropped)
    return dict(zip(PARTS, found, strict=True))
