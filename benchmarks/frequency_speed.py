"""Time the Gaussian split against a plain reference, in one run: `make bench`.

    python benchmarks/frequency_speed.py                  10,000 points, 1, 20 and 100 epochs
    python benchmarks/frequency_speed.py --points 3000    quicker
    python benchmarks/frequency_speed.py --device cpu     the split on the CPU, not on the GPU
    python benchmarks/frequency_speed.py --only project --points 60000 --epochs 2 --delta 100 400

The reference is written like the field's public code: numpy in float64 on the CPU, a list of one
full kernel per delta, computed again for each epoch. Its time per epoch does not depend on the
number of epochs. Both run the original's twelve deltas over drawn shapes (3,072 numbers per point)
alternately; times are medians. The floor is the time of the matrix products alone, at the rate
measured in this run. The reference runs in its own process. Peak memory is that of a separate
process, libraries included, or of the GPU.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from common.device import DEVICES, choose_device
from common.files import write_json

DELTAS = [1, 10, *range(100, 1001, 100)]
CLASSES = 10
GPU_TILE_ROWS = 2**14  # of the product whose rate is measured on a GPU


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


def make_inputs(count: int, epochs: int, device):
    """Points (n, d), labels (1, n, C) and softmax outputs (E, n, C), float32 on the device."""
    import torch

    from dataset.batches import normalize
    from dataset.shapes import draw_shapes

    images, labels = draw_shapes(count, np.random.default_rng(0))
    points = normalize(torch.from_numpy(images)).flatten(1)
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels), CLASSES).float()[None]
    noise = torch.randn(epochs, count, CLASSES, generator=torch.Generator().manual_seed(0))
    outputs = (noise + 2 * one_hot).softmax(2)
    return points.to(device), one_hot.to(device), outputs.to(device)


def seconds(run: Callable[[], object]) -> float:
    """Seconds that a call takes, including the work that it queues on the GPU."""
    import torch

    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def operations(points, sums, values: int) -> float:
    """Floating-point operations of the products: distances, and kernels that are not identities."""
    count, width = points.shape
    kernels = int((sums.complement > 0).sum())
    return 2.0 * count**2 * (width + kernels * values * CLASSES)


def product_rate(count: int, values: int, device) -> float:
    """Operations per second of a product of a kernel tile's shape."""
    import torch

    from analysis.gaussian_filter import TILE_BYTES

    rows = GPU_TILE_ROWS if device.type == "cuda" else TILE_BYTES // (4 * count)
    rows = min(rows, count)
    tile = torch.rand(rows, count, device=device)
    columns = torch.rand(count, values * CLASSES, device=device)
    best = min(seconds(lambda: tile @ columns) for _ in range(15))
    return 2.0 * rows * count * values * CLASSES / best


def run_alone(args: argparse.Namespace, device) -> None:
    """Run --only once; print its seconds and peak GB, on the last line as JSON."""
    from measuring import peak_memory, reset_peak_memory

    from analysis.gaussian_filter import filter_sums

    points, labels, outputs = make_inputs(args.points, max(args.epochs), device)
    reset_peak_memory(device)
    if args.only == "reference":
        exact = points.double().numpy(), outputs[0].double().numpy()
        took = seconds(lambda: reference_epoch(*exact))
    else:
        took = seconds(lambda: filter_sums(points, labels, outputs, args.delta))
    print(f"{args.only}: seconds and peak GB, alone in its process:")
    print(json.dumps({"seconds": took, "peak_gb": peak_memory(device)}))


def alone(args: argparse.Namespace, only: str, epochs: int = 1) -> dict:
    """What this script prints with --only, in a separate process: its seconds and peak GB."""
    device = "cpu" if only == "reference" else args.device
    command = [sys.executable, __file__, "--only", only, "--points", str(args.points)]
    command += ["--epochs", str(epochs), "--device", device]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(args: argparse.Namespace, device) -> dict:
    """Time both alternately; prints and returns the times of the reference and of the passes.

    The reference runs in separate processes: the pass is slower in one that has just run it.
    """
    from analysis.gaussian_filter import filter_sums

    most = max(args.epochs)
    points, labels, outputs = make_inputs(args.points, most, device)
    times: dict[int, list[float]] = {epochs: [] for epochs in args.epochs}
    reference, sample = [], []
    three = labels.repeat(3, 1, 1)  # a training sample has three kinds of labels, not one
    filter_sums(points, labels, outputs[:1], DELTAS)  # a rehearsal
    for _ in range(args.repeats):
        reference.append(alone(args, "reference"))
        for epochs, measured in times.items():
            some = outputs[:epochs]
            measured.append(seconds(lambda some=some: filter_sums(points, labels, some, DELTAS)))
        sample.append(seconds(lambda: filter_sums(points, three, outputs, DELTAS)))
    sums = filter_sums(points, labels, outputs[:1], DELTAS)
    rate = product_rate(args.points, most + 1, device)
    print(f"matrix products: {rate / 1e9:.0f} GFLOP/s in float32")
    one = median(run["seconds"] for run in reference)
    peak = max(run["peak_gb"] for run in reference)
    print(f"reference: {one:.1f} s per epoch, peak {peak:.2f} GB", flush=True)
    rows = []
    for epochs, measured in times.items():
        took = median(measured)
        floor = operations(points, sums, epochs + 1) / rate
        row = {"epochs": epochs, "seconds": took, "times_reference": one * epochs / took}
        row |= {"share_of_floor": floor / took}
        row["peak_gb"] = alone(args, "project", epochs)["peak_gb"]
        rows.append(row)
        print(
            f"{epochs} epochs: {took:.2f} s, {took / epochs:.4f} s per epoch, "
            f"{row['times_reference']:.0f} times the reference's speed, "
            f"{row['share_of_floor']:.0%} of the floor, peak {row['peak_gb']:.2f} GB",
            flush=True,
        )
    took, both = median(times[most]), median(sample)
    print(
        f"test set and training sample, {most} epochs: {took + both:.2f} s, "
        f"{1 + both / took:.2f} times the test set alone"
    )
    return {
        "points": args.points,
        "deltas": DELTAS,
        "matrix_product_per_second": rate,
        "reference": {"seconds": one, "peak_gb": peak},
        "rows": rows,
        "test_and_sample": {"epochs": most, "seconds": took + both},
    }


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--points", type=int, default=10_000)
    add("--epochs", type=int, nargs="+", default=[1, 20, 100])
    add("--delta", type=float, nargs="+", default=DELTAS, help="with --only project")
    add("--repeats", type=int, default=3)
    add("--device", default="auto", choices=DEVICES, help="device of the split")
    add("--only", choices=("project", "reference"), help="run one of them once")
    add("--json", type=Path, help="also write the numbers to this file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from measuring import machine

    device = choose_device(args.device)
    if args.only:
        run_alone(args, device)
        return
    print(*(f"{name}: {value}" for name, value in machine().items()), sep=", ", flush=True)
    print(
        f"{args.points} points of 3072 numbers, {len(DELTAS)} deltas, the split on {device.type}",
        flush=True,
    )
    numbers = compare(args, device)
    if args.json:
        write_json(args.json, {**machine(), "split_on": device.type, **numbers})


if __name__ == "__main__":
    main()
