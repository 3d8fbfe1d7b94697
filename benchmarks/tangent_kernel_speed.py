"""Time the tangent kernel of a network against full Jacobians, in one run: `make bench`.

    python benchmarks/tangent_kernel_speed.py                 small_cnn, 500 images: 14 GB
    python benchmarks/tangent_kernel_speed.py --images 200    quicker, 5 GB

The reference forms the Jacobian of all outputs with respect to all parameters for every image with
torch.func, keeps them all, and multiplies them. Both get the same network and the same random
images on the CPU. Each runs in a process of its own, which gives its peak memory. The largest
difference of the two kernels is relative to the largest value.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

sys.path.insert(0, str(Path(__file__).parent.parent))

from measuring import alone, machine, peak_memory, seconds

from common.command_line import Parser, integer, run_script
from measures.kernels import output_vectors, tangent_kernel
from models.small_cnn import small_cnn

CLASSES = 10
CHUNK = 20  # images whose Jacobians are computed at once
CPU = torch.device("cpu")


def full_jacobians(model: nn.Module, images: Tensor) -> Tensor:
    """The tangent kernel float64 (n, n) of images (n, 3, H, W), from all Jacobians at once."""
    model = model.eval()
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # torch.func cannot differentiate through it
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def logits(values: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(model, {**values, **buffers}, (image[None],))[0]

    by_image = vmap(jacrev(logits), in_dims=(None, 0))
    size = sum(p.numel() for p in parameters.values())
    jacobians = torch.empty(len(images), CLASSES * size)
    for chunk, rows in zip(images.split(CHUNK), jacobians.split(CHUNK), strict=True):
        values = by_image(parameters, chunk).values()  # (b, C, ...) each
        torch.cat([value.flatten(2) for value in values], dim=2, out=rows.view(-1, CLASSES, size))
    return (jacobians @ jacobians.T).double()


def project(model: nn.Module, images: Tensor) -> Tensor:
    """The same kernel by measures/kernels.py."""
    return tangent_kernel(model, images, output_vectors(CLASSES))


def run(way: Callable, count: int) -> tuple[float, float, np.ndarray]:
    """Seconds, peak GB and the kernel of one way."""
    torch.manual_seed(0)
    model, images = small_cnn(CLASSES), torch.randn(count, 3, 32, 32)
    took, kernel = seconds(lambda: way(model, images), CPU)
    return took, peak_memory(CPU), kernel.numpy()


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument("--images", type=integer(1), default=500)
    args = parser.parse_args(argv)
    print(f"{machine(CPU)}; {args.images} images", flush=True)
    plain, peak, expected = alone(run, full_jacobians, args.images)
    print(f"reference: {plain:.1f} s, peak {peak:.2f} GB", flush=True)
    took, peak, kernel = alone(run, project, args.images)
    difference = np.abs(kernel - expected).max() / np.abs(expected).max()
    print(
        f"project: {took:.1f} s, {plain / took:.1f} times the reference's speed, "
        f"peak {peak:.2f} GB, largest difference {difference:.1e}"
    )


if __name__ == "__main__":
    sys.exit(run_script(Path(__file__).name, main))
