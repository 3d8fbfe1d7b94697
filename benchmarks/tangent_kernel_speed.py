"""Time the tangent kernel of a network against full Jacobians, in one run: `make bench`.

    python benchmarks/tangent_kernel_speed.py                 small_cnn, 500 images: 13 GB
    python benchmarks/tangent_kernel_speed.py --images 200    quicker, 5 GB

The reference forms the Jacobian of all outputs with respect to all parameters for every image with
torch.func, keeps them all, and multiplies them. Each method runs in its own process, which gives
its peak memory, libraries included. Both get the same network and the same random images; the
largest difference of the two kernels is relative to the largest value.
"""

import argparse
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap

sys.path.insert(0, str(Path(__file__).parent.parent))

from analysis.tangent_kernel import output_vectors, tangent_kernel
from models.small_cnn import small_cnn

CLASSES = 10
CHUNK = 20  # images whose Jacobians are computed at once


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
    """The same kernel by analysis/tangent_kernel.py."""
    return tangent_kernel(model, images, output_vectors(CLASSES)[0])


WAYS = {"reference": full_jacobians, "project": project}


def run_alone(way: str, count: int, path: Path) -> tuple[float, float]:
    """Seconds and peak GB of one method in its own process, which writes its kernel to `path`."""
    words = [sys.executable, __file__, "--images", str(count), "--only", way, "--out", str(path)]
    line = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    return float(line[0]), float(line[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--only", choices=WAYS, help="one method only, printed as seconds and GB")
    parser.add_argument("--out", type=Path, help="file for the kernel of --only")
    args = parser.parse_args()
    if args.only:
        torch.manual_seed(0)
        model, images = small_cnn(CLASSES), torch.randn(args.images, 3, 32, 32)
        start = time.perf_counter()
        kernel = WAYS[args.only](model, images)
        seconds = time.perf_counter() - start
        np.save(args.out, kernel.numpy())
        # Kilobytes on Linux, bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9)
        return
    threads = torch.get_num_threads()
    print(f"{platform.platform()}, {threads} threads, torch {torch.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        paths = {way: Path(folder) / f"{way}.npy" for way in WAYS}
        results = {way: run_alone(way, args.images, path) for way, path in paths.items()}
        expected, kernel = (np.load(path) for path in paths.values())
    for way, (seconds, peak) in results.items():
        print(f"{way}: {seconds:.1f} s, peak {peak:.2f} GB")
    ratio = results["reference"][0] / results["project"][0]
    difference = np.abs(kernel - expected).max() / np.abs(expected).max()
    print(f"{args.images} images: {ratio:.1f} times the speed, largest difference {difference:.1e}")


if __name__ == "__main__":
    main()
