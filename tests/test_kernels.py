"""measures/kernels.py, spectrum.py: kernels and coefficients along eigenvectors, against numpy."""

import copy
import itertools

import numpy as np
import pytest
import torch
from references import noisy_labels, softmax
from scipy.spatial.distance import cdist
from torch import nn

from measures import kernels, spectrum
from measures.parts import PARTS, label_parts, transition_matrix
from models.shake_resnet import shake_resnet
from models.small_cnn import small_cnn

COUNT, CLASSES, DELTA = 60, 3, 4.0
NETWORKS = {
    "small_cnn": lambda: small_cnn(CLASSES),
    "shake_resnet": lambda: shake_resnet(8, 4, CLASSES),
    "linear without bias": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES, bias=False)),
    "no linear layer": lambda: nn.Sequential(
        nn.Conv2d(3, CLASSES, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
}


@pytest.mark.parametrize("count", [1, 2, 3, 16, 17, 4999, 9999])
def test_half_octaves_hold_every_index_once(count):
    edges = kernels.half_octaves(count)
    indices = [i for a, b in itertools.pairwise(edges) for i in range(a, b)]
    assert indices == list(range(1, count + 1))
    # Each full band ends at about the square root of 2 times its start, up to rounding to integers.
    for a, b in itertools.pairwise(edges[:-1]):
        assert abs(b - a * 2**0.5) <= 1.3


def small_images():
    return torch.randn(COUNT, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def expected_kernel(delta):
    """The kernel (n, n) of small_images() by scipy."""
    points = small_images().flatten(1).double().numpy()
    return np.exp(-cdist(points, points, "sqeuclidean") / (2 * delta))


@pytest.mark.parametrize("delta", [0.5, 20.0])
def test_gaussian_kernel_against_scipy(delta):
    kernel = kernels.gaussian_kernel(small_images(), delta)
    np.testing.assert_allclose(kernel, expected_kernel(delta), rtol=1e-10, atol=1e-300)


@pytest.mark.parametrize("rank", [COUNT, 7])
def test_eigenvectors_of_the_centered_kernel(rank):
    factor = np.random.default_rng(0).normal(size=(COUNT, rank))
    kernel = factor @ factor.T
    vectors = kernels.eigenvectors(torch.from_numpy(kernel.copy())).numpy()
    centering = np.eye(COUNT) - 1 / COUNT
    centered = centering @ kernel @ centering
    values = np.sum(vectors * (centered @ vectors), axis=0)
    assert vectors.shape == (COUNT, COUNT - 1)
    assert np.all(np.diff(values) <= 1e-10 * values[0])
    np.testing.assert_allclose(centered @ vectors, vectors * values, atol=1e-10 * values[0])
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(COUNT - 1), atol=1e-12)
    # The constant vector is left out, also where other eigenvalues are 0.
    np.testing.assert_allclose(vectors.sum(0), 0, atol=1e-10)


@pytest.mark.parametrize(
    ("value", "words"), [(np.nan, "not finite"), (np.inf, "not finite"), (1, "same for all images")]
)
def test_kernels_without_eigenvectors_are_refused(value, words):
    kernel = torch.ones(4, 4, dtype=torch.float64)
    kernel[1, 2] = value
    with pytest.raises(ValueError, match=words):
        kernels.eigenvectors(kernel)


def network(name):
    """In float64, with running statistics and affine parameters that are not 0 and 1."""
    torch.manual_seed(0)
    model = NETWORKS[name]().double()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_()
            layer.running_var.uniform_(0.5, 2)
            nn.init.uniform_(layer.weight, 0.5, 2)
            nn.init.normal_(layer.bias)
    return model


def images(count=7):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()


def batch_norms(model):
    return [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]


@pytest.mark.parametrize("block", [500, 4])
def test_calibrated_statistics_are_those_of_the_images(block, monkeypatch):
    monkeypatch.setattr(kernels, "BLOCK", block)
    model, inputs, seen = network("shake_resnet"), images(8), {}
    before = copy.deepcopy(model.state_dict())
    found = kernels.calibrated(model, inputs)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(module.training for module in found.modules())
    # In eval mode the first layer's inputs do not depend on statistics, so they are known exactly.
    first = batch_norms(found)[0]
    first.register_forward_hook(lambda layer, inputs, output: seen.update(x=inputs[0]))
    found(inputs)
    batches = seen["x"].detach().tensor_split(len(inputs) // min(block, len(inputs)))
    mean = torch.stack([x.mean((0, 2, 3)) for x in batches]).mean(0)
    var = torch.stack([x.transpose(0, 1).flatten(1).var(1) for x in batches]).mean(0)
    torch.testing.assert_close(first.running_mean, mean)
    torch.testing.assert_close(first.running_var, var)


def test_a_calibrated_network_normalizes_every_layer_of_the_images():
    model, inputs, outputs = network("small_cnn"), images(40), []
    found = kernels.calibrated(model, inputs)
    for layer in batch_norms(found):  # copied: the ReLU after it works in place
        layer.register_forward_hook(lambda layer, _, y: outputs.append((layer, y.clone())))
    found(inputs)
    assert len(outputs) == 3
    for layer, output in outputs:
        # To what the variance of a finite batch loses: that over n - 1 values is what is kept.
        torch.testing.assert_close(output.mean((0, 2, 3)), layer.bias, rtol=0, atol=5e-3)
        deviation = output.transpose(0, 1).flatten(1).std(1)
        torch.testing.assert_close(deviation, layer.weight, rtol=5e-3, atol=0)


def jacobians(model, inputs):
    """(n, C, P) by one call of autograd for each image and output."""
    model = copy.deepcopy(model).eval()
    parameters = list(model.parameters())
    rows = []
    for image in inputs:
        for output in range(CLASSES):
            gradients = torch.autograd.grad(model(image[None])[0, output], parameters)
            rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    return torch.stack(rows).view(len(inputs), CLASSES, -1)


@pytest.mark.parametrize(
    "name", [pytest.param("small_cnn", marks=pytest.mark.slow), *list(NETWORKS)[1:]]
)
def test_tangent_kernel_against_explicit_jacobians(name):
    model, inputs = network(name), images(4)
    before, gradients = copy.deepcopy(model.state_dict()), jacobians(model, inputs)
    random = torch.randn(5, CLASSES, generator=torch.Generator().manual_seed(2))
    for vectors in (torch.eye(CLASSES), random):
        contracted = torch.einsum("vc,icp->ivp", vectors.double(), gradients)
        expected = torch.einsum("ivp,jvp->ij", contracted, contracted)
        kernel = kernels.tangent_kernel(model, inputs, vectors)
        torch.testing.assert_close(kernel, expected, rtol=1e-8, atol=1e-8 * expected.max().item())
        assert torch.equal(kernel, kernel.T)
    # The network is as before: also its mode and what its layers do in place.
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    assert any(getattr(layer, "inplace", False) for layer in model.modules()) or "bias" in name


@pytest.mark.parametrize("limit", [1, 8 * 84 * 9])  # bytes: of one image, and of three blocks
def test_the_memory_that_is_given_changes_nothing(limit, monkeypatch):
    model, inputs = network("no linear layer"), images(11)
    expected = kernels.tangent_kernel(model, inputs, torch.eye(CLASSES))
    for name, value in (("BLOCK", 3), ("CHUNK", 2), ("GRADIENT_BYTES", limit)):
        monkeypatch.setattr(kernels, name, value)
    kernel = kernels.tangent_kernel(model, inputs, torch.eye(CLASSES))
    torch.testing.assert_close(kernel, expected, rtol=1e-10, atol=0)


def test_ten_outputs_have_unit_vectors_and_more_have_signs():
    assert torch.equal(kernels.output_vectors(10), torch.eye(10))
    vectors = kernels.output_vectors(40)
    assert len(vectors) < 40 and torch.equal(kernels.output_vectors(40), vectors)
    torch.testing.assert_close(vectors.abs(), torch.full_like(vectors, len(vectors) ** -0.5))


def test_sign_vectors_give_the_identity_on_average():
    products = [v.T @ v for v in (kernels.output_vectors(20, seed) for seed in range(2000))]
    mean, deviation = torch.stack(products).mean(0), torch.stack(products).std(0)
    error = 6 * deviation.max() / len(products) ** 0.5
    assert (mean - torch.eye(20)).abs().max() < error


LAYER = nn.Linear(192, 192)


# For neither is the kernel an outer product: a layer on more than rows, and one called twice.
@pytest.mark.parametrize(
    "model", [nn.Linear(8, CLASSES), nn.Sequential(nn.Flatten(), LAYER, LAYER)]
)
def test_a_linear_layer_without_an_outer_product_is_refused(model):
    with pytest.raises(ValueError, match="linear layer"):
        kernels.tangent_kernel(model.double(), images(), torch.eye(CLASSES))


# Coefficients along eigenvectors


FIVE = 5  # classes, so that one vector can tell three parts apart


def random_labels(classes=FIVE):
    clean, noisy = noisy_labels(COUNT, classes)
    return clean, noisy, transition_matrix(clean, noisy, classes)


def random_logits(classes=FIVE):
    """Of three epochs."""
    return np.random.default_rng(1).normal(0, 2, (3, COUNT, classes)).astype(np.float32)


def measured(labels, logits, dropped=False):
    kernel = kernels.gaussian_kernel(small_images(), DELTA)
    found = spectrum.label_spectrum(kernel, label_parts(*labels))
    return spectrum.measure_spectrum(found, logits, dropped)


def stacked(by_part):
    return np.stack([by_part[part] for part in PARTS])


def expected_bands(labels, outputs, parts):
    """The energies (3, K) and coefficients (P, E, K) by numpy's eigh and lstsq in float64."""
    centering = np.eye(COUNT) - 1 / COUNT
    values, vectors = np.linalg.eigh(centering @ expected_kernel(DELTA) @ centering)
    vectors = vectors[:, np.argsort(values)[::-1]][:, :-1]  # the constant vector has eigenvalue 0
    energies, coefficients = [], []
    for a, b in itertools.pairwise(kernels.half_octaves(COUNT - 1)):
        basis = vectors[:, a - 1 : b - 1]
        of_parts = {name: basis.T @ part for name, part in label_parts(*labels).items()}
        energies.append([np.square(part).sum() for part in of_parts.values()])
        design = np.stack([of_parts[name].ravel() for name in parts], axis=1)
        target = np.stack([(basis.T @ output).ravel() for output in outputs], axis=1)
        coefficients.append(np.linalg.lstsq(design, target, rcond=None)[0])
    return np.array(energies).T, np.moveaxis(coefficients, 0, 2)


@pytest.mark.parametrize("dropped", [False, True])
def test_energies_and_coefficients_against_lstsq_in_the_eigenbasis(dropped, monkeypatch):
    monkeypatch.setattr(spectrum, "EPOCHS_AT_ONCE", 2)
    logits, labels = random_logits(), random_labels()
    content = measured(labels, logits, dropped)
    assert content["edges"] == kernels.half_octaves(COUNT - 1)
    rows = [0, 2] if dropped else [0, 1, 2]
    names = [PARTS[k] for k in rows]
    energies, expected = expected_bands(labels, softmax(logits), names)
    found = stacked(content["softmax"])
    assert found.shape == (3, 3, len(content["edges"]) - 1)
    np.testing.assert_allclose(found[rows], expected, atol=5e-5)
    assert np.isnan(found[1]).all() == dropped
    # The bands add up to the whole of each centered part.
    parts = [part - part.mean(axis=0) for part in label_parts(*labels).values()]
    totals = np.array([[np.square(part).sum()] for part in parts])
    np.testing.assert_allclose(stacked(content["energies"]), energies / totals, rtol=1e-9)


def test_labels_without_noise_have_a_clean_part_only():
    clean = random_labels()[0]
    logits = np.eye(FIVE, dtype=np.float32)[None, clean]
    content = measured((clean, clean, np.eye(FIVE)), logits)
    level = (np.e - 1) / (np.e + FIVE - 1)
    np.testing.assert_allclose(content["softmax"]["clean"], level, atol=1e-5)
    for kind in ("energies", "softmax"):
        assert np.isnan(stacked(content[kind])[1:]).all()


def test_two_classes_are_unknown_where_one_vector_cannot_tell_two_parts_apart():
    labels, logits = random_labels(classes=2), random_logits(classes=2)
    content = measured(labels, logits, dropped=True)
    sizes, found = np.diff(content["edges"]), stacked(content["softmax"])
    assert np.isnan(found[:, :, sizes == 1]).all()
    assert np.isfinite(found[[0, 2]][:, :, sizes > 1]).all()
