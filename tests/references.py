"""Slow references in float64 with numpy and scipy, of losses and measures; the arrays of a run."""

import numpy as np
from scipy.spatial.distance import cdist

from dataset.batches import MEAN, STD
from measures import RunArrays

CLASSES = 4


def noisy_labels(count: int, classes: int = CLASSES):
    """Clean labels, and noisy ones by pair flip, 40% wrong."""
    random = np.random.default_rng(0)
    clean = random.permutation(np.arange(count) % classes)
    return clean, np.where(random.random(count) < 0.4, (clean + 1) % classes, clean)


def learning_run(epochs: int = 3, test: int = 40, sample: int = 60, train: int = 400) -> RunArrays:
    """A run that learns the clean labels first and memorizes the noisy ones later.

    An image has 8 x 8 pixels of the color of its class, with a contrast of its own.
    """
    random = np.random.default_rng(0)
    colors = random.uniform(80, 170, (CLASSES, 1, 1, 3))
    clean, noisy = noisy_labels(train)
    test_labels = np.arange(test) % CLASSES

    def images(labels):
        contrast = random.uniform(5, 60, (len(labels), 1, 1, 1))
        pixels = colors[labels] + contrast * random.standard_normal((len(labels), 8, 8, 3))
        return pixels.clip(0, 255).astype(np.uint8)

    def logits(first, later):
        times = np.arange(1, epochs + 1)[:, None, None] / epochs
        sure = 4 * times * np.eye(CLASSES)[first] + 8 * times**4 * np.eye(CLASSES)[later]
        return (sure + random.standard_normal(sure.shape)).astype(np.float32)

    index = slice(0, sample)
    return RunArrays(
        test_images=images(test_labels),
        test_labels=test_labels,
        test_logits=logits(test_labels, random.permutation(test_labels)),
        images=images(clean[index]),
        clean=clean[index],
        noisy=noisy[index],
        logits=logits(clean[index], noisy[index]),
        training_labels=(clean, noisy),
    )


def as_points(images) -> np.ndarray:
    """uint8 (n, H, W, 3) -> float64 (n, 3 H W): a point's numbers may stand in any order."""
    return ((images / 255 - MEAN) / STD).reshape(len(images), -1)


def softmax(logits) -> np.ndarray:
    """Probabilities (..., C), float64."""
    values = np.exp(np.float64(logits) - np.max(logits, axis=-1, keepdims=True))
    return values / values.sum(axis=-1, keepdims=True)


def smoothing_matrix(points, delta: float) -> np.ndarray:
    """S (n, n) of points (n, d)."""
    kernel = np.exp(-cdist(points, points, "sqeuclidean") / (2 * delta))
    return kernel / kernel.sum(1, keepdims=True)


def split_bands(smoothing, values) -> tuple[np.ndarray, np.ndarray]:
    """The low and the high part of values (n, C)."""
    low = smoothing @ values
    return low, values - low


def expected_ratios(smoothing, values) -> dict[str, float]:
    """The measures that need no labels, of values (n, C)."""
    low, high = map(np.linalg.norm, split_bands(smoothing, values))
    return {"delta_norm": low / (low + high), "energy_share": low**2 / (low**2 + high**2)}


def expected_errors(smoothing, labels, values) -> dict[str, float]:
    """Relative errors of values (n, C) against labels (n, C), by band."""
    norm = np.linalg.norm
    bands = zip(split_bands(smoothing, labels), split_bands(smoothing, values), strict=True)
    errors = [norm(expected - output) / norm(expected) for expected, output in bands]
    return dict(zip(("e_low", "e_high"), errors, strict=True))


def lstsq(columns, target) -> np.ndarray:
    """numpy's least squares of a target (n, C) on columns (n, C) each, all centered."""
    columns = [(column - column.mean(0)).ravel() for column in columns]
    return np.linalg.lstsq(np.stack(columns, 1), (target - target.mean(0)).ravel(), rcond=None)[0]


def expected_coefficients(smoothing, parts, values) -> dict[str, float]:
    """Least squares within each band on parts (n, C) by name."""
    found = {}
    for k, band in enumerate(("low", "high")):
        columns = [split_bands(smoothing, part - part.mean(0))[k] for part in parts.values()]
        target = split_bands(smoothing, values - values.mean(0))[k]
        matrix = np.stack([column.ravel() for column in columns], axis=1)
        solution = np.linalg.lstsq(matrix, target.ravel(), rcond=None)[0]
        found |= {f"{part}_{band}": x for part, x in zip(parts, solution, strict=True)}
    return found


def is_close(value: float, expected: float) -> bool:
    """To 1e-5: absolute up to 1, relative above (e_high is unbounded)."""
    return abs(value - expected) < 1e-5 * max(1, abs(expected))


class SlowLoss:
    """The loss of losses.py whose flags `loss` has, by loops; it remembers values of each image."""

    def __init__(self, loss):
        self.loss, self.previous, self.current = loss, {}, {}

    def __call__(self, logits, labels, index):
        """Objective, gradient (B, C) and agreement, or None, of logits (B, C)."""
        method = getattr(self, self.loss.name.replace("-", "_"))
        return method(softmax(logits), labels, index)

    def end_epoch(self):
        self.previous, self.current = self.current, {}

    def cross_entropy(self, p, labels, index):
        objective, gradient = 0.0, p / len(p)
        for i, label in enumerate(labels):
            objective -= np.log(p[i, label]) / len(p)
            gradient[i, label] -= 1 / len(p)
        return objective, gradient, None

    def self_distillation(self, p, labels, index):
        loss, (count, classes) = self.loss, p.shape
        unit, taught = np.eye(classes), []
        for i, image in enumerate(index):
            own = p[i] if loss.soft else unit[p[i].argmax()]
            self.current[image] = own
            if loss.teacher == "uniform":
                taught.append(np.full(classes, 1 / classes))
            elif loss.teacher == "batch":
                taught.append(own)
            elif self.previous:
                taught.append(self.previous[image])
        if not taught:
            return self.cross_entropy(p, labels, index)
        agreement = sum(t.argmax() == y for t, y in zip(taught, labels, strict=True)) / count
        weight = agreement if loss.weight is None else loss.weight
        objective, gradient = 0.0, np.zeros_like(p)
        for i, label in enumerate(labels):
            target = (1 - weight) * unit[label] + weight * taught[i]
            objective -= (target * np.log(p[i])).sum() / count
            gradient[i] = (p[i] - target) / count
        return objective, gradient, agreement

    def generalized_cross_entropy(self, p, labels, index):
        q, objective, gradient = self.loss.q, 0.0, np.zeros_like(p)
        for i, label in enumerate(labels):
            power = p[i, label] ** q
            objective += (1 - power) / q / len(p)
            gradient[i] = power * (p[i] - np.eye(p.shape[1])[label]) / len(p)
        return objective, gradient, None

    def early_learning_regularization(self, p, labels, index):
        beta, strength, bound = self.loss.beta, self.loss.strength, 1e-4
        objective, gradient, _ = self.cross_entropy(p, labels, index)
        for i, image in enumerate(index):
            clamped = p[i].clip(bound, 1 - bound)
            before = self.previous.get(image, np.zeros(p.shape[1]))
            target = beta * before + (1 - beta) * clamped / clamped.sum()
            self.current[image] = target
            inner = (target * clamped).sum()
            objective += strength * np.log(1 - inner) / len(p)
            slope = target * (clamped == p[i])  # a clamped probability does not move
            towards = p[i] * slope - p[i] * (p[i] * slope).sum()
            gradient[i] -= strength * towards / (1 - inner) / len(p)
        return objective, gradient, None
