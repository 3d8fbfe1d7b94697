"""What a network learned of noisy labels: clean classes, class transition, and individual labels.

With Y the clean labels as one-hot vectors, the noise N = onehot(noisy) - Y splits into

    B = E[N | clean class]    transition part: row of T - I of the image's clean class
    E = N - B                 individual part: what no function of the clean class can predict

T is the class transition matrix, estimated on the whole training set. The learned shares are the
least-squares coefficients of a network's centered outputs on the centered Y, B and E. A predictor
that knows the clean class, memorizes nothing and outputs P(noisy label | clean class) has the
shares (1, 1, 0). A network that outputs every noisy label has (1, 1, 1), so the share of E
measures how many individual labels are memorized, whatever the confidence in the transition.

Noise that depends on the image, as human labels do, leaves something predictable in E: there the
share of E can be above 0 without memorization.
"""

import numpy as np

PARTS = ("clean", "transition", "individual")
NEGLIGIBLE = 1e-20  # a part with less than this share of the energy is zero up to rounding
DEPENDENT = 1e-6  # smallest eigenvalue of the parts' correlations: above what float32 sums lose
# Ratio of energies, see transition_evidence: at 10, sampling makes up at most a tenth of what
# tells B from Y. Simulated symmetric noise of 3 to 100 classes and 1,000 to 50,000 images stays
# below 3. At 10,000 images pair noise of 40% has 297 with 10 classes and 34 with 100, human
# labels have 17 to 43. A limit on the residual's share of B's energy does not separate them:
# symmetric noise reaches 0.3% of it with 10 classes but 4% with 100, human labels 12%.
ENOUGH_EVIDENCE = 10


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """Integer labels (n,) -> float64 (n, classes)."""
    return np.eye(classes)[labels]


def transition_matrix(clean: np.ndarray, noisy: np.ndarray, classes: int) -> np.ndarray:
    """T (classes, classes): T[c, k] is the share of the images of class c with noisy label k.

    clean, noisy: integer labels (N,) of the whole training set. A class without images has the
    identity's row.
    """
    counts = np.zeros((classes, classes))
    np.add.at(counts, (clean, noisy), 1)
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
        "individual": identity[noisy] - transition[clean],
    }


def transition_evidence(clean: np.ndarray, transition: np.ndarray) -> float:
    """How many times more energy tells B from Y than the finite data set alone would give.

    clean: integer labels (N,) of the whole training set that `transition` is estimated on.

    Centered B of symmetric noise is a multiple of centered Y, but an estimate of T scatters, so B
    has a small residual beside Y. The result is the residual's energy divided by the energy of the
    scatter: entry T[c, k] of a class with n_c images has the variance T[c, k] (1 - T[c, k]) / n_c,
    and each image of the class carries it once. It is about 1 for symmetric noise, for any number
    of images and classes; 0 where B is zero or exactly collinear with Y.
    """
    identity, counts = np.eye(len(transition)), np.bincount(clean, minlength=len(transition))
    weights = counts[:, None] / counts.sum()
    shift, label = transition - identity, identity - weights.T
    shift = shift - (weights * shift).sum(axis=0)
    slope = (weights * shift * label).sum() / max((weights * label * label).sum(), NEGLIGIBLE)
    residual = (weights * (shift - slope * label) ** 2).sum()
    if residual <= 1e-12 * (weights * shift**2).sum():
        return 0.0
    scatter = (transition * (1 - transition)).sum() / counts.sum()
    return float(residual / scatter) if scatter else np.inf


def transition_is_collinear(clean: np.ndarray, transition: np.ndarray) -> bool:
    """Whether the shares of B and Y cannot be told apart, so that B is to be dropped.

    One decision for a data set, from its whole training set (see transition_evidence): without B
    the share of Y includes the transition, so it must not change from band to band.
    """
    return transition_evidence(clean, transition) < ENOUGH_EVIDENCE


def learned_shares(
    gram: np.ndarray, products: np.ndarray, transition_dropped: bool, total: float | None = None
) -> np.ndarray:
    """The learned shares of Y, B and E by V outputs, from inner products: (3, V, ...).

    gram: (3, 3, ...) inner products of the centered parts in the order of PARTS; products:
    (3, V, ...) those of the parts with the outputs. Trailing axes are solved one by one: deltas,
    frequency bands, bands of eigenvectors. transition_dropped: leave B out (see
    transition_is_collinear). total: unfiltered energy of the clean part, beside which a part
    counts as zero; by default the largest energy in `gram`.

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
    shares = np.linalg.solve(correlations, products / norms) / norms
    shares = np.where((present & solvable)[..., None], shares, np.nan)
    return np.moveaxis(shares, (-2, -1), (0, 1))


def inner_products(
    parts: dict[str, np.ndarray], outputs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Unfiltered `gram` (3, 3) and `products` (3, epochs) for learned_shares.

    parts: (n, C) each; outputs: (epochs, n, C), of which one epoch at a time becomes float64.
    """
    centered = np.stack([parts[name] - parts[name].mean(axis=0) for name in PARTS])
    flat = centered.reshape(len(PARTS), -1)
    # <centered part, outputs> = <centered part, centered outputs>, so the outputs stay as they are.
    columns = [flat @ np.asarray(epoch, np.float64).ravel() for epoch in outputs]
    return flat @ flat.T, np.stack(columns, axis=1)


def unfiltered_shares(
    parts: dict[str, np.ndarray], outputs: np.ndarray, transition_dropped: bool
) -> dict[str, np.ndarray]:
    """The learned shares of each part, (epochs,) each.

    parts: (n, C) each, of label_parts; outputs: (epochs, n, C), probabilities or one-hot.
    """
    shares = learned_shares(*inner_products(parts, outputs), transition_dropped)
    return dict(zip(PARTS, shares, strict=True))


def low_energy_shares(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """The share of each part's energy that is low, low / (low + high): (3, ...).

    low, high: (3, 3, ...) inner products of the parts in each band. NaN for a part that is zero.
    """
    low, high = (np.moveaxis(np.diagonal(gram), -1, 0) for gram in (low, high))
    total = low + high
    present = total > NEGLIGIBLE * total.max()
    return np.where(present, low / np.where(present, total, 1), np.nan)


def ideal_predictor(clean: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """P(noisy label | clean class) (n, C) of images with clean labels (n,): memorizes nothing."""
    return transition[clean]


def sharpen(probabilities: np.ndarray, power: float) -> np.ndarray:
    """Probabilities (..., C) to the `power`, normalized: same argmax, higher confidence."""
    sharp = probabilities**power
    return sharp / sharp.sum(axis=-1, keepdims=True)


def one_hot_predictions(logits: np.ndarray) -> np.ndarray:
    """float32 (epochs, n, C): 1 for the predicted class. Equal confidence for every network."""
    return np.eye(logits.shape[-1], dtype=np.float32)[logits.argmax(axis=-1)]
