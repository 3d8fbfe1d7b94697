"""Time the shake of two branches, forward and backward, against the plain expression: `make bench`.

    python benchmarks/shake_speed.py

The expression lerp(x2, x1, beta) + ((alpha - beta) (x1 - x2)).detach() needs no custom Function;
models/shake_resnet.py has one because of what this prints. Alternately, medians.
"""

import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from models.shake_resnet import Shake

SHAPES = ((128, 32, 32, 32), (128, 64, 16, 16), (128, 128, 8, 8))  # of 26 2x32d, batch 128


def expression(x1, x2, alpha, beta):
    return torch.lerp(x2, x1, beta) + ((alpha - beta) * (x1 - x2)).detach()


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{platform.platform()}, {device}, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}")  # fmt: skip
    for shape in SHAPES:
        layout = {"device": device, "memory_format": torch.channels_last}
        x1, x2, gradient = (torch.randn(shape).to(**layout) for _ in range(3))
        x1.requires_grad_(), x2.requires_grad_()
        alpha, beta = torch.rand(2, len(x1), 1, 1, 1, device=device)
        times: dict[str, list[float]] = {"expression": [], "Function": []}
        for _ in range(20):
            for name, shake in (("expression", expression), ("Function", Shake.apply)):
                start = time.perf_counter()
                for _ in range(5):
                    torch.autograd.grad(shake(x1, x2, alpha, beta), (x1, x2), gradient)
                if device == "cuda":
                    torch.cuda.synchronize()
                times[name].append((time.perf_counter() - start) / 5)
        plain, ours = (1e3 * float(np.median(t)) for t in times.values())
        ratio = f"{plain / ours:.2f} times the speed"
        print(f"{shape}: expression {plain:.2f} ms, Function {ours:.2f} ms, {ratio}")


if __name__ == "__main__":
    main()
