"""Kernels over images, and their eigenvectors: Gaussian, and the network's tangent kernel.

The empirical neural tangent kernel of a network over a set of images (Jacot et al., arXiv
1806.07572) is

    K_ij = sum over the outputs k of < d f_k(x_i) / d theta, d f_k(x_j) / d theta >

with the logits f and all parameters theta, in eval mode. The sum over outputs is a sum over vectors
v of the gradients of v . f, exact for the unit vectors and unbiased for random sign vectors.

The gradient of a linear layer's weights is an outer product, so that its part of the kernel is the
inputs' Gram matrix times that of the gradients at its outputs, and no gradient is formed. The
gradients of all other parameters are formed image by image with torch.func.
"""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from measures import progress

MAX_UNIT_VECTORS = 10
SIGN_VECTORS = 10
GRADIENT_BYTES = 2**31  # of per-image gradients that are kept at a time
BLOCK = 500  # images whose gradients are multiplied at once
CHUNK = 50  # images of one forward and backward pass


def half_octaves(count: int) -> list[int]:
    """Edges e_0 < e_1 < ... of bands of the indices 1 to `count`: band k is e_k to e_(k+1) - 1.

    The edges are the powers of the square root of 2, rounded; the last is count + 1.
    """
    powers = {round(2 ** (k / 2)) for k in range(2 * count.bit_length())}
    return [*sorted(edge for edge in powers if edge <= count), count + 1]


def gaussian_kernel(images: Tensor, delta: float) -> Tensor:
    """exp(-|x_i - x_j|^2 / (2 delta)): float64 (n, n) of normalized images (n, ...).

    delta is a variance, in squared normalized-pixel units.
    """
    points = images.flatten(1).double()
    points = points - points.mean(0)  # keeps the distances, and makes their rounding errors smaller
    norms = points.square().sum(1)
    distances = torch.addmm(norms, points, points.T, alpha=-2).add_(norms[:, None])
    distances.fill_diagonal_(0)
    return distances.clamp_(min=0).mul_(-0.5 / delta).exp_()


def eigenvectors(kernel: Tensor) -> Tensor:
    """The eigenvectors (n, n - 1) of the centered kernel, that of the largest eigenvalue first.

    kernel: float64 (n, n), symmetric and positive semidefinite; it is centered in place, as H K H
    with H = I - 11'/n. The constant vector, whose eigenvalue is then 0, is left out. Raises
    ValueError if the kernel has a value that is not finite, or is the same for all images.
    """
    if not kernel.isfinite().all():
        raise ValueError("the kernel has values that are not finite")
    means = kernel.mean(0)
    kernel.sub_(means).sub_(means[:, None]).add_(means.mean())
    trace = kernel.trace()
    if not trace > 0:
        raise ValueError("the kernel is the same for all images")
    # A negative eigenvalue for the constant vector keeps it apart from others of about 0.
    kernel.sub_(trace / len(kernel) ** 2)
    return torch.linalg.eigh(kernel)[1][:, 1:].flip(1)


@torch.no_grad()
def calibrated(model: nn.Module, images: Tensor) -> nn.Module:
    """A copy of the network, in eval mode, whose BatchNorm knows the statistics of the images.

    images: normalized (n, 3, H, W), n at least 2. Before training, BatchNorm has seen no image, and
    the kernel would be that of another network. Only its layers are in training mode, so that their
    inputs are those of eval mode. Their running statistics are averages over batches of one size.
    """
    model = copy.deepcopy(model).eval()
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.reset_running_stats()
            layer.momentum = None  # the average over all batches
            layer.train()
    for batch in progress(images.tensor_split(-(-len(images) // BLOCK)), "statistics"):
        model(batch)
    return model.eval()


def output_vectors(classes: int, seed: int = 0) -> Tensor:
    """Vectors float32 (V, C) with sum v v' = I.

    Unit vectors for up to MAX_UNIT_VECTORS outputs, which are exact; otherwise random signs over
    the square root of V = SIGN_VECTORS, for which the sum is I in expectation.
    """
    if classes <= MAX_UNIT_VECTORS:
        return torch.eye(classes)
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (SIGN_VECTORS, classes), generator=generator) * 2.0 - 1
    return signs / SIGN_VECTORS**0.5


def tangent_kernel(model: nn.Module, images: Tensor, vectors: Tensor) -> Tensor:
    """The tangent kernel, not centered: float64 (n, n) on the images' device.

    images: normalized (n, 3, H, W), of the parameters' type; vectors: (V, C), see `output_vectors`.
    The model is not changed. An image's outputs must not depend on other images in eval mode, and a
    linear layer must take rows (n, features), once in a pass: raises ValueError otherwise.
    """
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # it would overwrite an output whose gradient is needed
    vectors = vectors.to(images)
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    in_layers = {id(p) for layer in layers for p in layer.parameters()}
    rest = [name for name, p in model.named_parameters() if id(p) not in in_layers]
    kernel = torch.zeros(len(images), len(images), dtype=torch.float64, device=images.device)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # TF32 has three digits
        if layers:
            _add_linear_layers(kernel, model, layers, images, vectors)
        if rest:
            _add_gradient_products(kernel, *_image_gradients(model, rest), images, vectors)
    return kernel.triu().add_(kernel.triu(1).T)


def _add_linear_layers(
    kernel: Tensor, model: nn.Module, layers: list[nn.Linear], images: Tensor, vectors: Tensor
) -> None:
    """Add (a_i . a_j + 1) (d_i . d_j) of each layer: a its input, d the gradients at its output."""
    calls: list[tuple[nn.Linear, Tensor, Tensor]] = []  # of a pass: layer, input, output

    def hook(layer: nn.Linear, inputs: tuple[Tensor], output: Tensor) -> None:
        calls.append((layer, inputs[0].detach(), output))

    handles = [layer.register_forward_hook(hook) for layer in layers]
    factors = []  # by chunk and layer: inputs (b, features), gradients (b, V outputs)
    for chunk in progress(images.split(CHUNK), "tangent kernel, linear layers"):
        calls.clear()
        logits = model(chunk)
        if len(calls) != len(layers) or any(inputs.dim() != 2 for _, inputs, _ in calls):
            raise ValueError("a linear layer is called not once, or on more than rows")
        outputs = [output for *_, output in calls]
        by_vector = [
            torch.autograd.grad(logits, outputs, vector.expand_as(logits), retain_graph=True)
            for vector in vectors
        ]
        gradients = [torch.cat(of_layer, dim=1) for of_layer in zip(*by_vector, strict=True)]
        factors.append([(call[1], each) for call, each in zip(calls, gradients, strict=True)])
    for handle in handles:
        handle.remove()
    for (layer, *_), chunks in zip(calls, zip(*factors, strict=True), strict=True):
        inputs, gradients = (torch.cat(parts) for parts in zip(*chunks, strict=True))
        kernel += (inputs @ inputs.T + (layer.bias is not None)).mul_(gradients @ gradients.T)


def _image_gradients(model: nn.Module, names: list[str]) -> tuple[Callable, int]:
    """A function that gives the gradients of v . f(x) for the named parameters, and their number.

    The function takes images (b, 3, H, W) and a vector (C,) and returns (b, P).
    """
    tensors = {k: p.detach() for k, p in model.named_parameters()} | dict(model.named_buffers())
    chosen = {name: tensors.pop(name) for name in names}

    def output(parameters: dict[str, Tensor], image: Tensor, vector: Tensor) -> Tensor:
        return functional_call(model, {**tensors, **parameters}, (image[None],))[0] @ vector

    by_image = vmap(grad(output), in_dims=(None, 0, None))
    size = sum(tensor.numel() for tensor in chosen.values())

    def gradients(images: Tensor, vector: Tensor) -> Tensor:
        rows = images.new_empty(len(images), size)
        for chunk, part in zip(images.split(CHUNK), rows.split(CHUNK), strict=True):
            values = by_image(chosen, chunk, vector).values()
            torch.cat([value.flatten(1) for value in values], dim=1, out=part)
        return rows

    return gradients, size


def _add_gradient_products(
    kernel: Tensor, gradients: Callable, size: int, images: Tensor, vectors: Tensor
) -> None:
    """Add the gradients' inner products to the upper triangle of the kernel (n, n).

    The gradients (b, P = size) of a panel of blocks are kept, as many as fit GRADIENT_BYTES; those
    of each later block are multiplied with them all and dropped.
    """
    bytes_per_image = size * images.element_size()
    block = max(1, min(BLOCK, GRADIENT_BYTES // (2 * bytes_per_image)))
    blocks = [slice(i, i + block) for i in range(0, len(images), block)]
    panel = max(1, GRADIENT_BYTES // (block * bytes_per_image) - 1)
    starts = range(0, len(blocks), panel)
    tasks = [
        (v, start, at) for v in vectors for start in starts for at in range(start, len(blocks))
    ]
    kept: list[tuple[slice, Tensor]] = []
    for vector, start, at in progress(tasks, "tangent kernel"):
        if at == start:
            kept.clear()
        column_gradients = gradients(images[blocks[at]], vector)
        if len(kept) < panel:
            kept.append((blocks[at], column_gradients))
        for rows, row_gradients in kept:
            kernel[rows, blocks[at]] += row_gradients @ column_gradients.T
