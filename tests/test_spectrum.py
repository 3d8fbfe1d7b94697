"""measures/spectrum.py: coefficients along eigenvectors against numpy's lstsq, exact cases."""

import itertools

import numpy as np
import pytest
import torch
from references import noisy_labels, softmax
from scipy.spatial.distance import cdist

from measures import spectrum as ms
from measures.kernels import gaussian_kernel, half_octaves
from measures.parts import PARTS, label_parts, transition_matrix

COUNT, CLASSES, DELTA = 90, 5, 4.0


def random_labels(count=COUNT, classes=CLASSES):
    clean, noisy = noisy_labels(count, classes)
    return clean, noisy, transition_matrix(clean, noisy, classes)


def random_images(count=COUNT):
    return torch.from_numpy(np.random.default_rng(0).normal(size=(count, 3, 2, 2))).float()


def random_logits(count=COUNT, classes=CLASSES, epochs=3):
    logits = np.random.default_rng(1).normal(size=(epochs, count, classes)) * 2
    return logits.astype(np.float32)


def measured(images, labels, logits, dropped=False):
    spectrum = ms.label_spectrum(gaussian_kernel(images, DELTA), label_parts(*labels))
    return ms.measure_spectrum(spectrum, logits, dropped)


def stacked(by_part):
    return np.stack([by_part[part] for part in PARTS])


def expected_bands(images, labels, outputs, parts=PARTS):
    """The energies (3, K) and coefficients (P, E, K) by numpy's eigh and lstsq in float64."""
    points, count = images.flatten(1).double().numpy(), len(images)
    kernel = np.exp(-cdist(points, points, "sqeuclidean") / (2 * DELTA))
    centering = np.eye(count) - 1 / count
    values, vectors = np.linalg.eigh(centering @ kernel @ centering)
    vectors = vectors[:, np.argsort(values)[::-1]][:, :-1]  # the constant vector has eigenvalue 0
    energies, coefficients = [], []
    for a, b in itertools.pairwise(half_octaves(count - 1)):
        basis = vectors[:, a - 1 : b - 1]
        of_parts = {name: basis.T @ part for name, part in label_parts(*labels).items()}
        energies.append([np.square(part).sum() for part in of_parts.values()])
        design = np.stack([of_parts[name].ravel() for name in parts], axis=1)
        target = np.stack([(basis.T @ output).ravel() for output in outputs], axis=1)
        coefficients.append(np.linalg.lstsq(design, target, rcond=None)[0])
    return np.array(energies).T, np.moveaxis(coefficients, 0, 2)


@pytest.mark.parametrize("dropped", [False, True])
def test_energies_and_coefficients_against_lstsq_in_the_eigenbasis(dropped, monkeypatch):
    monkeypatch.setattr(ms, "EPOCHS_AT_ONCE", 2)
    images, logits, labels = random_images(), random_logits(), random_labels()
    content = measured(images, labels, logits, dropped)
    assert content["edges"] == half_octaves(COUNT - 1)
    rows = [0, 2] if dropped else [0, 1, 2]
    names = [PARTS[k] for k in rows]
    energies, expected = expected_bands(images, labels, softmax(logits), names)
    found = stacked(content["softmax"])
    assert found.shape == (3, 3, len(content["edges"]) - 1)
    np.testing.assert_allclose(found[rows], expected, atol=5e-5)
    assert np.isnan(found[1]).all() == dropped
    # The bands add up to the whole of each centered part.
    parts = [part - part.mean(axis=0) for part in label_parts(*labels).values()]
    totals = np.array([[np.square(part).sum()] for part in parts])
    np.testing.assert_allclose(stacked(content["energies"]), energies / totals, rtol=1e-9)


def test_the_ideal_predictor_memorizes_nothing_in_any_band():
    clean, noisy, transition = random_labels()
    ideal = np.log(transition[clean] + 1e-30).astype(np.float32)[None]
    content = measured(random_images(), (clean, noisy, transition), ideal)
    for part, level in zip(PARTS, (1, 1, 0), strict=True):
        np.testing.assert_allclose(content["softmax"][part], level, atol=2e-5)


def test_labels_without_noise_have_a_clean_part_only():
    clean = random_labels()[0]
    logits = np.eye(CLASSES, dtype=np.float32)[None, clean]
    content = measured(random_images(), (clean, clean, np.eye(CLASSES)), logits)
    level = (np.e - 1) / (np.e + CLASSES - 1)
    np.testing.assert_allclose(content["softmax"]["clean"], level, atol=1e-5)
    for kind in ("energies", "softmax"):
        assert np.isnan(stacked(content[kind])[1:]).all()


def test_two_classes_are_unknown_where_one_vector_cannot_tell_two_parts_apart():
    labels, logits = random_labels(classes=2), random_logits(classes=2)
    content = measured(random_images(), labels, logits, dropped=True)
    sizes, found = np.diff(content["edges"]), stacked(content["softmax"])
    assert np.isnan(found[:, :, sizes == 1]).all()
    assert np.isfinite(found[[0, 2]][:, :, sizes > 1]).all()
