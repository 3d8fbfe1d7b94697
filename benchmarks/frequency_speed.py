"""Time the Gaussian split against a plain reference, in one run: `make bench`.

    python benchmarks/frequency_speed.py                    10,000 images, 1 and 100 epochs
    python benchmarks/frequency_speed.py --n 3000           quicker
    python benchmarks/frequency_speed.py --device cuda      the pass on a GPU

The reference is written like the field's public code: numpy in float64 on the CPU, a list of one
full kernel per delta, computed again for each epoch. Both split drawn shapes (3,072 numbers per
image) at the deltas that frequency.py uses for them, and each runs in a process of its own, which
gives its peak memory. The floor is the time of the matrix products alone at the rate of a product
of a tile's shape. The largest difference is that of the energy shares of the first epoch.
"""

import sys
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.nn.functional import one_hot

sys.path.insert(0, str(Path(__file__).parent.parent))

from measuring import alone, machine, peak_memory, product_rate, seconds

from common.command_line import DEVICES, Parser, choose_device, integer, run_script
from dataset.batches import normalize
from dataset.shapes import draw_shapes
from measures.bands import original_ratios
from measures.gaussian import TILE_BYTES, default_deltas, filter_columns

CLASSES = 10
GPU_TILE_ROWS = 2**14  # of the product whose rate is measured on a GPU


def make_inputs(count: int, epochs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points (n, d), and values (n, 1 + E, C): labels and the outputs of E epochs; float32."""
    images, labels = draw_shapes(count, np.random.default_rng(0))
    points = normalize(torch.from_numpy(images)).flatten(1)
    labels, generator = one_hot(torch.from_numpy(labels), CLASSES), torch.Generator().manual_seed(0)
    noise = [torch.randn(count, CLASSES, generator=generator) for _ in range(epochs)]
    outputs = [(each + 2 * labels).softmax(1) for each in noise]  # epoch 1 is that of any length
    return points, torch.stack([labels.float(), *outputs], dim=1)


def reference_epoch(points: np.ndarray, outputs: np.ndarray, deltas: Sequence[float]) -> np.ndarray:
    """Energy shares (D,) of one epoch's outputs (n, C) over points (n, d), float64."""
    norms = np.square(points).sum(1)
    distances = -2 * points @ points.T + norms + norms[:, None]
    kernels = []
    for delta in deltas:
        kernel = np.exp(-distances / 2 / delta)
        kernels.append(kernel / kernel.sum(1, keepdims=True))
    shares = []
    for kernel in kernels:
        low = kernel @ outputs
        high = outputs - low
        shares.append(np.sum(low**2) / (np.sum(low**2) + np.sum(high**2)))
    return np.array(shares)


def run_reference(count: int) -> tuple[float, float, np.ndarray]:
    """Seconds per epoch, peak GB and energy shares of the reference."""
    points, values = make_inputs(count, 1)
    exact = points.double().numpy(), values[:, 1].double().numpy()
    deltas, cpu = default_deltas("shapes", points), torch.device("cpu")
    took, shares = seconds(partial(reference_epoch, *exact, deltas), cpu)
    return took, peak_memory(cpu), shares


def run_project(
    count: int, epochs: int, repeats: int, device: torch.device
) -> tuple[float, float, np.ndarray, float]:
    """Median seconds of a pass, its peak GB, energy shares of epoch 1, and its share of the floor.

    A rehearsal comes first.
    """
    points, values = (tensor.to(device) for tensor in make_inputs(count, epochs))
    deltas, times = default_deltas("shapes", points), []
    for _ in range(repeats + 1):
        inputs = points.clone(), values.clone()  # a pass centers them in place
        time, sums = seconds(partial(filter_columns, *inputs, 1, deltas), device)
        times.append(time)
    took, peak = median(times[1:]), peak_memory(device)
    kernels = int((sums.complement > 0).sum())  # the others are identities
    work = 2.0 * count**2 * (points.shape[1] + kernels * (1 + epochs) * CLASSES)
    rows = GPU_TILE_ROWS if device.type == "cuda" else TILE_BYTES // (4 * count)
    rate = product_rate(min(rows, count), count, (1 + epochs) * CLASSES, device)
    return took, peak, original_ratios(sums)["energy_share"][1], work / rate / took


def parse_args(argv: Sequence[str] | None = None) -> Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--device", default="auto", choices=DEVICES, help="device of the project's pass")
    add("--epochs", type=integer(1), nargs="+", default=[1, 100])
    add("--n", type=integer(1), default=10_000, help="number of images")
    add("--repeats", type=integer(1), default=3)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    device = choose_device(args.device)
    print(f"{machine(device)}; {args.n} images", flush=True)
    plain, peak, expected = alone(run_reference, args.n)
    print(f"reference: {plain:.2f} s per epoch, peak {peak:.2f} GB", flush=True)
    for epochs in args.epochs:
        took, peak, shares, of_floor = alone(run_project, args.n, epochs, args.repeats, device)
        print(
            f"{epochs} epochs: {took:.2f} s, {plain * epochs / took:.1f} times the reference's "
            f"speed, {of_floor:.0%} of the floor, peak {peak:.2f} GB, largest difference "
            f"{np.abs(shares - expected).max():.1e}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(run_script(Path(__file__).name, main))
