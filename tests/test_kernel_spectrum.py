"""Learned shares along eigenvectors: against numpy's lstsq, exact cases, invariances."""

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from analysis.kernel_spectrum import (
    eigenvectors,
    gaussian_kernel,
    half_octaves,
    label_spectrum,
    learned_shares,
    shuffled_energy,
)
from analysis.label_parts import PARTS, label_parts, one_hot_predictions, transition_matrix

COUNT, CLASSES = 90, 5


def noisy_labels(count=COUNT, classes=CLASSES, seed=0):
    """Clean labels, and noisy ones with a transition that is far from symmetric."""
    random = np.random.default_rng(seed)
    clean = random.integers(classes, size=count)
    noisy = np.where(random.random(count) < 0.4, (clean + 1) % classes, clean)
    return clean, noisy, transition_matrix(clean, noisy, classes)


def random_images(count=COUNT, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 3, 2, 2))).float()


def random_outputs(count=COUNT, classes=CLASSES, epochs=3, seed=0):
    logits = np.random.default_rng([seed, 1]).normal(size=(epochs, count, classes)) * 2
    return torch.from_numpy(logits).float().softmax(2)


def shares_of(images, labels, outputs, delta=4.0, dropped=False):
    spectrum = label_spectrum(gaussian_kernel(images, delta), label_parts(*labels))
    return spectrum, learned_shares(spectrum, outputs, dropped)


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 4999, 9999])
def test_half_octaves_hold_every_index_once(count):
    edges = half_octaves(count)
    indices = [i for a, b in itertools.pairwise(edges) for i in range(a, b)]
    assert indices == list(range(1, count + 1))
    # Each full band ends at about the square root of 2 times its start, up to rounding to integers.
    for a, b in itertools.pairwise(edges[:-1]):
        assert abs(b - a * 2**0.5) <= 1.3


def test_half_octaves_of_the_default_size():
    head, tail = half_octaves(4999)[:10], half_octaves(4999)[-5:]
    assert head == [1, 2, 3, 4, 6, 8, 11, 16, 23, 32]
    assert tail == [1448, 2048, 2896, 4096, 5000]


@pytest.mark.parametrize("delta", [0.5, 20.0])
def test_gaussian_kernel_against_scipy(delta):
    images = random_images()
    points = images.flatten(1).double().numpy()
    expected = np.exp(-cdist(points, points, "sqeuclidean") / (2 * delta))
    np.testing.assert_allclose(gaussian_kernel(images, delta), expected, rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("rank", [COUNT, 7])
def test_eigenvectors_of_the_centered_kernel(rank):
    factor = np.random.default_rng(0).normal(size=(COUNT, rank))
    kernel = factor @ factor.T
    values, vectors = (t.numpy() for t in eigenvectors(torch.from_numpy(kernel.copy())))
    centering = np.eye(COUNT) - 1 / COUNT
    centered = centering @ kernel @ centering
    assert vectors.shape == (COUNT, COUNT - 1)
    assert np.all(np.diff(values) <= 0)
    np.testing.assert_allclose(centered @ vectors, vectors * values, atol=1e-10 * values[0])
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(COUNT - 1), atol=1e-12)
    # The constant vector is left out, also where other eigenvalues are 0.
    np.testing.assert_allclose(vectors.sum(0), 0, atol=1e-10)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_kernel_that_is_not_finite_is_refused(value):
    kernel = torch.eye(4, dtype=torch.float64)
    kernel[1, 2] = value
    with pytest.raises(ValueError, match="not finite"):
        eigenvectors(kernel)


def test_a_kernel_that_tells_no_images_apart_is_refused():
    with pytest.raises(ValueError, match="same for all images"):
        eigenvectors(torch.ones(4, 4, dtype=torch.float64))


@pytest.mark.parametrize("dropped", [False, True])
def test_shares_against_lstsq_in_the_eigenbasis(dropped):
    images, outputs, labels = random_images(), random_outputs(), noisy_labels()
    spectrum, shares = shares_of(images, labels, outputs, dropped=dropped)
    points = images.flatten(1).double().numpy()
    kernel = np.exp(-cdist(points, points, "sqeuclidean") / 8)
    centering = np.eye(COUNT) - 1 / COUNT
    values, vectors = np.linalg.eigh(centering @ kernel @ centering)
    vectors = vectors[:, np.argsort(values)[::-1]][:, :-1]  # the constant vector has eigenvalue 0
    columns = [0, 2] if dropped else [0, 1, 2]
    assert shares.shape == (3, len(outputs), len(spectrum.edges) - 1)
    for band, (a, b) in enumerate(itertools.pairwise(spectrum.edges)):
        basis = vectors[:, a - 1 : b - 1]
        parts = [basis.T @ part for part in label_parts(*labels).values()]
        energies = [np.square(part).sum() for part in parts]
        np.testing.assert_allclose(spectrum.energies[:, band], energies, rtol=1e-9)
        design = np.stack([parts[k].ravel() for k in columns], axis=1)
        for epoch, output in enumerate(outputs.double().numpy()):
            expected = np.linalg.lstsq(design, (basis.T @ output).ravel(), rcond=None)[0]
            np.testing.assert_allclose(shares[columns, epoch, band], expected, atol=2e-5)
    assert np.isnan(shares[1]).all() == dropped


def test_bands_add_up_to_the_whole():
    clean, noisy, transition = noisy_labels()
    spectrum, _ = shares_of(random_images(), (clean, noisy, transition), random_outputs())
    parts = label_parts(clean, noisy, transition)
    whole = [np.square(p - p.mean(axis=0)).sum() for p in (parts[name] for name in PARTS)]
    np.testing.assert_allclose(spectrum.energies.sum(axis=1), whole, rtol=1e-12)
    np.testing.assert_allclose(spectrum.eigenvalues.sum(), 1, rtol=1e-12)


def test_float32_products_are_as_good_as_float64():
    images, labels = random_images(600), noisy_labels(600)
    outputs = random_outputs(600)
    spectrum, shares = shares_of(images, labels, outputs)
    basis = eigenvectors(gaussian_kernel(images, 4.0))[1].numpy()
    parts = [part - part.mean(axis=0) for part in label_parts(*labels).values()]
    for band, (a, b) in enumerate(itertools.pairwise(spectrum.edges)):
        rows = basis[:, a - 1 : b - 1].T
        design = np.stack([(rows @ part).ravel() for part in parts], axis=1)
        target = np.stack([(rows @ output).ravel() for output in outputs.double().numpy()], axis=1)
        expected = np.linalg.lstsq(design, target, rcond=None)[0]
        np.testing.assert_allclose(shares[:, :, band], expected, atol=1e-5)


def test_the_ideal_predictor_memorizes_nothing_in_any_band():
    clean, noisy, transition = noisy_labels()
    ideal = torch.from_numpy(transition[clean])[None].float()
    _, shares = shares_of(random_images(), (clean, noisy, transition), ideal)
    expected = np.broadcast_to([[1.0], [1.0], [0.0]], shares[:, 0].shape)
    np.testing.assert_allclose(shares[:, 0], expected, atol=2e-5)


def test_memorized_labels_are_ones_in_every_band():
    clean, noisy, transition = noisy_labels()
    logits = np.eye(CLASSES)[None, noisy]
    outputs = torch.from_numpy(one_hot_predictions(logits))
    _, shares = shares_of(random_images(), (clean, noisy, transition), outputs)
    np.testing.assert_allclose(shares, 1, atol=2e-5)


def test_labels_without_noise_have_a_clean_part_only():
    clean, _, _ = noisy_labels()
    labels = clean, clean, np.eye(CLASSES)
    outputs = torch.from_numpy(0.25 * np.eye(CLASSES)[None, clean] + 0.75 / CLASSES).float()
    _, shares = shares_of(random_images(), labels, outputs)
    np.testing.assert_allclose(shares[0], 0.25, atol=1e-5)
    assert np.isnan(shares[1:]).all()


def test_two_classes_are_unknown_where_one_vector_cannot_tell_two_parts_apart():
    labels = noisy_labels(
        classes=2
    )  # of two classes the transition is a multiple of the clean part
    spectrum, shares = shares_of(random_images(), labels, random_outputs(classes=2), dropped=True)
    sizes = np.diff(spectrum.edges)
    assert np.isnan(shares[:, :, sizes == 1]).all()
    assert np.isfinite(shares[[0, 2]][:, :, sizes > 1]).all()


def test_a_permutation_of_the_images_changes_nothing():
    images, outputs, labels = random_images(), random_outputs(), noisy_labels()
    order = np.random.default_rng(5).permutation(COUNT)
    moved = (labels[0][order], labels[1][order], labels[2])
    spectrum, shares = shares_of(images, labels, outputs)
    of_moved, moved_shares = shares_of(images[order], moved, outputs[:, order])
    np.testing.assert_allclose(moved_shares, shares, atol=1e-5)
    np.testing.assert_allclose(of_moved.gram, spectrum.gram, atol=1e-9)


def test_shuffled_labels_have_the_bands_share_of_the_dimensions():
    noisy = noisy_labels()[1]
    kernel = gaussian_kernel(random_images(), 4.0)
    vectors = eigenvectors(kernel)[1].numpy()
    values = np.eye(CLASSES)[noisy]
    values = values - values.mean(axis=0)
    random, energies = np.random.default_rng(0), []
    for _ in range(4000):
        energies.append(np.square(vectors.T @ random.permutation(values)).sum(axis=1))
    energies = np.array(energies) / np.square(values).sum()
    edges = half_octaves(COUNT - 1)
    bands = np.add.reduceat(energies, np.array(edges[:-1]) - 1, axis=1)
    error = 5 * bands.std(axis=0) / len(bands) ** 0.5
    assert np.all(np.abs(bands.mean(axis=0) - shuffled_energy(edges)) < error)
    assert shuffled_energy(edges).sum() == pytest.approx(1)
