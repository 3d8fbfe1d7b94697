"""The noise models: the one place where a noise model is added.

A noise model is a function of the clean labels, the class names and a random generator; it returns
the label that each image gets if its label is flipped. NOISES lists the models by name.
"""

from math import comb, erfc, factorial

import numpy as np

from common.command_line import UserError

CIFAR10_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
# The literature's map of classes that look alike (Patrini et al., arXiv 1609.03683).
ASYMMETRIC = {
    "truck": "automobile",
    "bird": "airplane",
    "deer": "horse",
    "cat": "dog",
    "dog": "cat",
}


def pair(labels: np.ndarray, class_names: list[str], random: np.random.Generator) -> np.ndarray:
    """Pair flip: y -> (y + 1) mod C. labels and result: int64 (N,)."""
    return (labels + 1) % len(class_names)


def symmetric(
    labels: np.ndarray, class_names: list[str], random: np.random.Generator
) -> np.ndarray:
    """Symmetric noise: uniform over the other C - 1 classes. labels and result: int64 (N,)."""
    step = random.integers(1, len(class_names), len(labels))
    return (labels + step) % len(class_names)


def asymmetric(
    labels: np.ndarray, class_names: list[str], random: np.random.Generator
) -> np.ndarray:
    """CIFAR-10's look-alike classes by ASYMMETRIC; the other five classes keep their labels.

    labels and result: int64 (N,). Raises UserError for classes other than CIFAR-10's.
    """
    if sorted(class_names) != sorted(CIFAR10_CLASSES):
        raise UserError(
            f"--noise asymmetric is defined for CIFAR-10's classes only, not for "
            f"{', '.join(class_names[:4])} ...; use --noise pair or symmetric"
        )
    names = [ASYMMETRIC.get(name, name) for name in class_names]
    return np.array([class_names.index(name) for name in names])[labels]


def none(labels: np.ndarray, class_names: list[str], random: np.random.Generator) -> np.ndarray:
    """No noise: every label stays. labels and result: int64 (N,)."""
    return labels


NOISES = {
    "pair": pair,
    "symmetric": symmetric,
    "asymmetric": asymmetric,
    "none": none,
}
# What tables and figures call the noise of a data set; other label files go by their own name.
TITLES = {
    "pair": "pair flip",
    "CIFAR-10_human-worse_label": "human (CIFAR-10N)",
    "CIFAR-10_human-worse_label-matched": "human, matched",
}
EXACT = 500  # images up to which the chance of an agreement is counted exactly


def noise_title(meta: dict) -> str:
    """The noise of a data set and its rate, from its `meta`, as in: pair flip, 40% wrong."""
    name = TITLES.get(meta["noise"], meta["noise"])
    return f"{name}, {100 * meta['rate_found']:.3g}% wrong"


def flip_labels(
    labels: np.ndarray, noise: str, rate: float, class_names: list[str], seed: int
) -> np.ndarray:
    """Noisy labels int64 (N,): exactly round(rate n) of the clean labels (N,) are flipped.

    n counts the images that the model can flip: all of them, or those of the five classes of
    asymmetric noise. Which labels are flipped and what they become are drawn separately from
    `seed` for all N labels, so a label flipped at a lower rate is also flipped at a higher one.
    """
    random = np.random.default_rng([seed, 1])
    order = random.permutation(len(labels))
    flipped = NOISES[noise](labels, class_names, random)
    order = order[flipped[order] != labels[order]]
    wrong = order[: round(rate * len(order))]
    noisy = labels.copy()
    noisy[wrong] = flipped[wrong]
    return noisy


def match_transitions(noisy: np.ndarray, clean: np.ndarray, seed: int) -> np.ndarray:
    """Labels int64 (N,) with the class transitions of `noisy`, but independent of the image.

    noisy, clean: int64 (N,). Within each clean class the noisy labels are permuted, so that their
    `transition_counts` are the same: a control that separates "which image" from "which class".
    """
    random = np.random.default_rng([seed, 5])
    matched = noisy.copy()
    for label in np.unique(clean):
        members = np.flatnonzero(clean == label)
        matched[members] = random.permutation(noisy[members])
    return matched


def chance_agreement(clean: np.ndarray, noisy: np.ndarray, num_classes: int) -> tuple[float, float]:
    """Mean and standard deviation of the number of equal labels if `noisy` is randomly permuted.

    clean, noisy: int64 (N,). The moments of a permutation statistic by Hoeffding ("A combinatorial
    central limit theorem", 1951) for the matrix [clean_i = noisy_j].
    """
    n = len(clean)
    k, m = (np.bincount(labels, minlength=num_classes).astype(float) for labels in (clean, noisy))
    pairs = k @ m  # ones in the matrix
    # The sum of its squares after its row and column means are subtracted.
    squares = pairs - (k @ m**2 + k**2 @ m) / n + (pairs / n) ** 2
    return pairs / n, float(np.sqrt(max(squares, 0) / max(n - 1, 1)))


def chance_probability(clean: np.ndarray, noisy: np.ndarray, num_classes: int) -> float:
    """How likely randomly permuted `noisy` agrees with `clean` in at least as many places.

    clean, noisy: int64 (N,). Exact for up to EXACT images; for more, the normal approximation with
    the moments of `chance_agreement`.
    """
    agree, n = int((clean == noisy).sum()), len(clean)
    if n > EXACT:
        mean, deviation = chance_agreement(clean, noisy, num_classes)
        return erfc((agree - 0.5 - mean) / (2**0.5 * deviation)) / 2 if deviation else 1.0
    if not agree:
        return 1.0
    # rooks[j]: ways to choose j places that agree and the noisy labels that stand there.
    rooks = np.array([1], object)
    counts = (np.bincount(y, minlength=num_classes).tolist() for y in (clean, noisy))
    for k, m in zip(*counts, strict=True):
        own = [comb(k, j) * comb(m, j) * factorial(j) for j in range(min(k, m) + 1)]
        rooks = np.convolve(rooks, np.array(own, object))
    # Inclusion and exclusion over the permutations (Riordan, "Combinatorial Analysis", 1958).
    ways = sum(
        (-1) ** (j - agree) * comb(j - 1, agree - 1) * rooks[j] * factorial(n - j)
        for j in range(agree, len(rooks))
    )
    return ways / factorial(n)


def transition_counts(clean: np.ndarray, noisy: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts int64 (C, C) of images by clean class (row) and noisy label (column)."""
    pairs = np.bincount(clean * num_classes + noisy, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)
