"""The tangent kernel against explicit Jacobians in float64, and its blocks and vectors."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from analysis import tangent_kernel as module
from analysis.kernel_spectrum import eigenvectors
from analysis.tangent_kernel import output_vectors, tangent_kernel
from models.shake_resnet import shake_resnet
from models.small_cnn import small_cnn

SLOW = pytest.mark.slow
IMAGES, CLASSES = 7, 3
NETWORKS = {
    "small_cnn": lambda: small_cnn(CLASSES),
    "shake_resnet": lambda: shake_resnet(8, 4, CLASSES),
    "linear without bias": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, CLASSES, bias=False)),
    "no linear layer": lambda: nn.Sequential(
        nn.Conv2d(3, CLASSES, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ),
}
BOTH_FAMILIES = [pytest.param("small_cnn", marks=SLOW), "shake_resnet"]


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


def images(count=IMAGES):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()


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


@pytest.mark.parametrize("name", NETWORKS)
def test_against_explicit_jacobians(name):
    model, inputs = network(name), images()
    before = copy.deepcopy(model.state_dict())
    kernel = tangent_kernel(model, inputs, torch.eye(CLASSES))
    expected = torch.einsum("icp,jcp->ij", *[jacobians(model, inputs)] * 2)
    torch.testing.assert_close(kernel, expected, rtol=1e-8, atol=1e-8 * expected.max().item())
    assert torch.equal(kernel, kernel.T)
    # The network is as before: also its mode and what its layers do in place.
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert model.training
    assert any(getattr(layer, "inplace", False) for layer in model.modules()) or "bias" in name


@pytest.mark.parametrize("name", BOTH_FAMILIES)
def test_the_centered_kernel_against_centered_jacobians(name):
    model, inputs = network(name), images()
    kernel = tangent_kernel(model, inputs, torch.eye(CLASSES))
    flat = jacobians(model, inputs).flatten(1).numpy()
    expected = np.linalg.svd(flat - flat.mean(axis=0), compute_uv=False)[:-1] ** 2
    values, _ = eigenvectors(kernel)
    np.testing.assert_allclose(values, expected, rtol=1e-8)


@pytest.mark.parametrize("name", BOTH_FAMILIES)
def test_any_vectors_give_the_contraction_of_the_jacobians(name):
    model, inputs = network(name), images()
    vectors = torch.randn(5, CLASSES, generator=torch.Generator().manual_seed(2))
    contracted = torch.einsum("vc,icp->ivp", vectors.double(), jacobians(model, inputs))
    expected = torch.einsum("ivp,jvp->ij", contracted, contracted)
    kernel = tangent_kernel(model, inputs, vectors)
    torch.testing.assert_close(kernel, expected, rtol=1e-8, atol=1e-8 * expected.max().item())


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1, 2**20, 3 * 2**20])
def test_the_memory_that_is_given_changes_nothing(limit, monkeypatch):
    model, inputs = network("small_cnn"), images(11)
    expected = tangent_kernel(model, inputs, torch.eye(CLASSES))
    monkeypatch.setattr(module, "BLOCK", 3)
    monkeypatch.setattr(module, "CHUNK", 2)
    kernel = tangent_kernel(model, inputs, torch.eye(CLASSES), gradient_bytes=limit)
    torch.testing.assert_close(kernel, expected, rtol=1e-10, atol=0)


def test_float32_keeps_six_digits():
    model, inputs = network("shake_resnet"), images()
    expected = tangent_kernel(model, inputs, torch.eye(CLASSES))
    kernel = tangent_kernel(model.float(), inputs.float(), torch.eye(CLASSES))
    assert kernel.dtype == torch.float64
    torch.testing.assert_close(kernel, expected, rtol=1e-4, atol=1e-6 * expected.max().item())


def test_ten_outputs_have_unit_vectors_and_more_have_signs():
    vectors, title = output_vectors(10)
    assert torch.equal(vectors, torch.eye(10)) and title == "10 unit vectors"
    vectors, title = output_vectors(40)
    assert title == f"{len(vectors)} sign vectors" and len(vectors) < 40
    torch.testing.assert_close(vectors.abs(), torch.full_like(vectors, len(vectors) ** -0.5))
    assert torch.equal(output_vectors(40)[0], vectors)


def test_sign_vectors_give_the_identity_on_average():
    products = [v.T @ v for v in (output_vectors(20, seed)[0] for seed in range(2000))]
    mean, deviation = torch.stack(products).mean(0), torch.stack(products).std(0)
    error = 6 * deviation.max() / len(products) ** 0.5
    assert (mean - torch.eye(20)).abs().max() < error


class Tokens(nn.Module):
    """A linear layer on the columns of an image, for which no outer product holds."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, CLASSES)

    def forward(self, x):
        return self.linear(x).mean(dim=(1, 2))


class Twice(nn.Module):
    """One linear layer that is called twice."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(CLASSES, CLASSES)

    def forward(self, x):
        return self.linear(self.linear(x.mean(dim=3)[:, :, 0]))


@pytest.mark.parametrize("layer", [Tokens, Twice])
def test_a_linear_layer_without_an_outer_product_is_refused(layer):
    with pytest.raises(ValueError, match="linear layer linear"):
        tangent_kernel(layer().double(), images(), torch.eye(CLASSES))
