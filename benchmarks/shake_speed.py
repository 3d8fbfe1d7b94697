"""Time the shake of two branches, forward and backward, against the plain expression: `make bench`.

    python benchmarks/shake_speed.py

The expression lerp(x2, x1, beta) + ((alpha - beta) (x1 - x2)).detach() needs no custom Function;
models/shake_resnet.py has one because of what this prints. The two run alternately; times are
medians.
"""

import argparse
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent.parent))

from models.shake_resnet import Shake

SHAPES = ((128, 32, 32, 32), (128, 64, 16, 16), (128, 128, 8, 8))  # of 26 2x32d, batch 128
CALLS = 5  # timed together, because one is short


def expression(x1: Tensor, x2: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """The shake as autograd can derive it; shapes as in Shake."""
    return torch.lerp(x2, x1, beta) + ((alpha - beta) * (x1 - x2)).detach()


def seconds(shake: Callable[..., Tensor], inputs: tuple[Tensor, ...], gradient: Tensor) -> float:
    """Seconds that one forward and backward pass takes. inputs: x1, x2, alpha, beta."""
    start = time.perf_counter()
    for _ in range(CALLS):
        torch.autograd.grad(shake(*inputs), inputs[:2], gradient)
    if gradient.is_cuda:
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / CALLS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = torch.get_num_threads()
    print(f"{platform.platform()}, {device}, {threads} threads, torch {torch.__version__}")
    for shape in SHAPES:
        layout = {"device": device, "memory_format": torch.channels_last}
        x1, x2, gradient = (torch.randn(shape).to(**layout) for _ in range(3))
        alpha, beta = torch.rand(2, len(x1), 1, 1, 1, device=device)
        inputs = x1.requires_grad_(), x2.requires_grad_(), alpha, beta
        times: dict[Callable, list[float]] = {expression: [], Shake.apply: []}
        for _ in range(args.repeats):
            for shake, measured in times.items():
                measured.append(seconds(shake, inputs, gradient))
        plain, custom = (1e3 * float(np.median(measured)) for measured in times.values())
        ratio = f"{plain / custom:.2f} times the speed"
        print(f"{shape}: expression {plain:.2f} ms, Function {custom:.2f} ms, {ratio}")


if __name__ == "__main__":
    main()
