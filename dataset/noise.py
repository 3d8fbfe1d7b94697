"""The noise models: the one place where a noise model is added.

A noise model is a function of the clean labels, the class names and a random generator; it returns
what each label becomes if it is flipped. NOISES lists the models by name.
"""

import numpy as np

from common.errors import UserError

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

    labels and result: int64 (N,). Raises UserError for other classes than CIFAR-10's.
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


NOISES = {"pair": pair, "symmetric": symmetric, "asymmetric": asymmetric, "none": none}


def flip_labels(
    labels: np.ndarray, noise: str, rate: float, class_names: list[str], seed: int
) -> np.ndarray:
    """Noisy labels int64 (N,): exactly round(rate n) of the clean labels (N,) are flipped.

    n counts the images that the model can flip: all of them, or those of the five classes of
    asymmetric noise. Which labels are flipped, and what they become, are two draws of `seed` over
    all N labels, so that the labels flipped at a lower rate are among those flipped at a higher.
    """
    random = np.random.default_rng([seed, 1])
    order = random.permutation(len(labels))
    flipped = NOISES[noise](labels, class_names, random)
    order = order[flipped[order] != labels[order]]
    wrong = order[: round(rate * len(order))]
    noisy = labels.copy()
    noisy[wrong] = flipped[wrong]
    return noisy


def transition_counts(clean: np.ndarray, noisy: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts int64 (C, C) of images by clean class (row) and noisy label (column)."""
    pairs = np.bincount(clean * num_classes + noisy, minlength=num_classes**2)
    return pairs.reshape(num_classes, num_classes)
