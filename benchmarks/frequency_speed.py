"""Time the Gaussian split against a plain reference, side by side: `make bench`.

    python benchmarks/frequency_speed.py                  10,000 points, 1, 20 and 100 epochs
    python benchmarks/frequency_speed.py --points 3000    quicker
    python benchmarks/frequency_speed.py --only ours --points 60000 --epochs 2 --delta 100 400 1600

The reference is written as the field's public code is: numpy in float64, a list of one full kernel
for each delta, made again for each epoch; its time an epoch does not depend on how many there are.
Both run the original's twelve deltas over drawn shapes (3,072 numbers a point) alternately; medians
are given. The floor is the time of the matrix products alone, at the rate measured in this run;
peak memory is of a process of its own, libraries included.
"""

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

DELTAS = [1, 10, *range(100, 1001, 100)]
CLASSES = 10


def reference_epoch(points: np.ndarray, outputs: np.ndarray) -> list[float]:
    """The energy share of one epoch's outputs (n, C) at each delta, over points (n, d) float64."""
    norms = np.square(points).sum(1)
    distances = -2 * points @ points.T + norms + norms[:, None]
    kernels = []
    for delta in DELTAS:
        kernel = np.exp(-distances / 2 / delta)
        kernels.append(kernel / kernel.sum(1, keepdims=True))
    shares = []
    for kernel in kernels:
        low = kernel @ outputs
        high = outputs - low
        shares.append(np.sum(low**2) / (np.sum(low**2) + np.sum(high**2)))
    return shares


def inputs(count: int, epochs: int):
    """Points (n, d), labels (1, n, C) and softmax outputs (E, n, C), as float32 tensors."""
    import torch

    from data import normalize
    from shapes import draw_shapes

    images, labels = draw_shapes(count, np.random.default_rng(0))
    points = normalize(torch.from_numpy(images)).flatten(1)
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels), CLASSES).float()[None]
    noise = torch.randn(epochs, count, CLASSES, generator=torch.Generator().manual_seed(0))
    return points, one_hot, (noise + 2 * one_hot).softmax(2)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_memory() -> float:
    """Of this process, in GB; getrusage would count what its parent had before it started."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**20


def peak_gigabytes(flags: list[str]) -> float:
    """Peak memory of this script with `flags`, in a process of its own."""
    command = [sys.executable, __file__, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def operations(points, sums, values: int) -> float:
    """Floating-point operations of the products: distances, and kernels that are not identities."""
    count, width = points.shape
    kernels = int((sums.removed > 0).sum())
    return 2.0 * count**2 * (width + kernels * values * CLASSES)


def product_rate(count: int, values: int) -> float:
    """Operations a second of a product of a kernel tile's shape."""
    import torch

    from gaussian_filter import TILE_BYTES

    rows = TILE_BYTES // (4 * count)
    tile, columns = torch.rand(rows, count), torch.rand(count, values * CLASSES)
    best = min(seconds(lambda: tile @ columns) for _ in range(15))
    return 2.0 * rows * count * values * CLASSES / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 20, 100])
    parser.add_argument("--delta", type=float, nargs="+", default=DELTAS, help="with --only ours")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--only", choices=("ours", "reference"), help="run once, alone; prints peak GB"
    )
    args = parser.parse_args()

    import torch

    from gaussian_filter import filter_sums

    points, labels, outputs = inputs(args.points, max(args.epochs))
    if args.only == "ours":
        took = seconds(lambda: filter_sums(points, labels, outputs, args.delta))
        print(f"{took:.1f} s alone in its process", file=sys.stderr)
    else:
        exact = points.double().numpy(), outputs[0].double().numpy()
    if args.only == "reference":
        reference_epoch(*exact)
    if args.only:
        print(peak_memory())
        return

    print(f"{platform.platform()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{args.points} points of {points.shape[1]} numbers, {len(DELTAS)} deltas")
    ours = {epochs: [] for epochs in args.epochs}
    reference, both_sets = [], []
    three = labels.repeat(3, 1, 1)  # the training set's pass has three values of labels, not one
    for _ in range(args.repeats):
        reference.append(seconds(lambda: reference_epoch(*exact)))
        for epochs, times in ours.items():
            part = outputs[:epochs]
            times.append(seconds(lambda part=part: filter_sums(points, labels, part, DELTAS)))
        both_sets.append(seconds(lambda: filter_sums(points, three, outputs, DELTAS)))
    sums = filter_sums(points, labels, outputs[:1], DELTAS)
    rate = product_rate(args.points, max(args.epochs) + 1)
    print(f"matrix products: {rate / 1e9:.0f} GFLOP/s in float32")

    one = float(np.median(reference))
    print(
        f"reference: {one:.1f} s an epoch, peak {peak_gigabytes(flags(args, 'reference')):.2f} GB"
    )
    for epochs, times in ours.items():
        wall = float(np.median(times))
        floor = operations(points, sums, epochs + 1) / rate
        peak = peak_gigabytes(flags(args, "ours", epochs))
        print(
            f"{epochs} epochs: {wall:.1f} s, {wall / epochs:.3f} s an epoch, "
            f"{one * epochs / wall:.0f} times the reference's speed, "
            f"{100 * floor / wall:.0f}% of the floor, peak {peak:.2f} GB"
        )
    wall = float(np.median(ours[max(args.epochs)]))
    print(f"test set and probe, {max(args.epochs)} epochs: {wall + np.median(both_sets):.1f} s, "
          f"{1 + np.median(both_sets) / wall:.2f} times the test set alone")  # fmt: skip


def flags(args: argparse.Namespace, only: str, epochs: int = 1) -> list[str]:
    return ["--only", only, "--points", str(args.points), "--epochs", str(epochs)]


if __name__ == "__main__":
    main()
