"""Time whole epochs against plain_training.py, both in one process, alternately: `make bench`.

    python benchmarks/training_speed.py                    all three networks
    python benchmarks/training_speed.py --network small_cnn --repeats 5 --images 50000
    python benchmarks/training_speed.py --network start    time to the first step

An epoch is one pass over the training images and one over a fifth as many test images. The floor is
the network's floating-point operations, counted by torch's FlopCounterMode over one training step
(a multiplication and an addition are two; convolutions and linear layers, forward and backward), at
the rate of a large matrix product measured between the epochs. Medians.
"""

import argparse
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent.parent))

from plain_training import plain_epoch, plain_model

import data
import train
from epoch import evaluate, train_epoch

ROOT = Path(__file__).parent.parent
# Flags of train.py, batch size and how many training images make an epoch here on a CPU.
NETWORKS = {
    "shake26-2x32d": (["--batch-size=128"], 768),
    "shake14-2x8d": (["--depth=14", "--width=8", "--batch-size=64"], 4096),
    "small_cnn": (["--model=small_cnn", "--batch-size=128"], 8192),
}
# Prints the seconds until the first step of training is done, then stops.
FIRST_STEP = """
import sys, time
began = time.perf_counter()
import torch, train
step = torch.optim.SGD.step
def stop(self, *args, **kwargs):
    step(self, *args, **kwargs)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    print(f"first step after {time.perf_counter() - began:.2f} s", flush=True)
    raise KeyboardInterrupt
torch.optim.SGD.step = stop
train.main(sys.argv[1:])
"""


def random_dataset(count: int, tests: int) -> data.DataSet:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count + tests, 32, 32, 3), np.uint8)
    labels = random.integers(0, 10, count + tests)
    train_part = (images[:count], labels[:count], labels[:count])
    test_part = (images[count:], labels[count:])
    names = [f"class {k}" for k in range(10)]
    return data.DataSet(*train_part, images[:0], labels[:0], *test_part, names, {})


def peak_memory(device: torch.device, reset: bool = False) -> float:
    """GB that this process, or on the device, was in use at most since the last reset."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() / 1e9
        if reset:
            torch.cuda.reset_peak_memory_stats()
        return peak
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1e6


def matrix_rate(device: torch.device, kind: torch.dtype) -> float:
    """Floating-point operations a second of a matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device, dtype=kind)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        _ = a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def compare(name: str, images: int | None, repeats: int) -> None:
    """Print one network's line: both loops' images a second, their ratio, memory, the floor."""
    flags, count = NETWORKS[name]
    args = train.parse_args([*flags, "--epochs=1000"])
    device, _ = train.choose_device(args)
    count = images or (50_000 if device.type == "cuda" else count)
    dataset = random_dataset(count, count // 5)
    arrays = (dataset.train_images, dataset.train_labels, dataset.clean_labels)
    train_set = [torch.from_numpy(a).to(device) for a in arrays]
    tests = torch.from_numpy(dataset.test_images).to(device)
    model, optimizer = train.prepare(args, dataset, device)
    plain = plain_model(train.make_model(args, dataset)).to(device)
    plain_optimizer = torch.optim.SGD(
        plain.parameters(), args.lr, train.MOMENTUM, weight_decay=args.weight_decay, nesterov=True
    )
    batch = data.normalize(train_set[0][: args.batch_size])
    with FlopCounterMode(display=False) as counter:
        model(batch).sum().backward()
    operations = counter.get_total_flops() / len(batch)

    def ours() -> float:
        start = time.perf_counter()
        train_epoch(model, optimizer, train_set, args, 1)
        trained.append(count / (time.perf_counter() - start))
        evaluate(model, tests).cpu()
        return time.perf_counter() - start

    def reference() -> float:
        start = time.perf_counter()
        parts = (dataset.train_images, dataset.train_labels)
        test_part = (dataset.test_images, dataset.test_labels)
        plain_epoch(plain, plain_optimizer, parts, test_part, args.batch_size, device)
        return time.perf_counter() - start

    kind = torch.bfloat16 if args.amp else torch.float32
    trained: list[float] = []
    times: dict = {ours: [], reference: []}
    memory, rates = dict.fromkeys(times, 0.0), []
    for repeat in range(repeats + 1):  # the first is a rehearsal
        for loop, found in times.items():
            peak_memory(device, reset=True)
            seconds = loop()
            memory[loop] = max(memory[loop], peak_memory(device))
            rates.append(matrix_rate(device, kind))
            if repeat:
                found.append(seconds)
    speed, plain_speed = (count / float(np.median(found)) for found in times.values())
    rate, training = float(np.median(rates)), float(np.median(trained[1:]))
    print(
        f"{name}: {speed:.0f} images/s, reference {plain_speed:.0f}, "
        f"{speed / plain_speed:.2f} times; peak {memory[ours]:.2f} GB, reference "
        f"{memory[reference]:.2f}; training alone {training:.0f} images/s of "
        f"{operations / 1e6:.1f} MFLOP each: {training * operations / rate:.0%} of the "
        f"{rate / 1e9:.0f} GFLOP/s of a {str(kind).removeprefix('torch.')} matrix product",
        flush=True,
    )


def start_times() -> None:
    """Print how long a data set of CIFAR-10's size takes to read, and a run to its first step."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.npz"
        data.write_dataset(path, random_dataset(50_000, 10_000))
        start = time.perf_counter()
        data.read_dataset(path).sha256  # noqa: B018
        print(f"reading 60,000 images: {time.perf_counter() - start:.2f} s", flush=True)
        command = [sys.executable, "-c", FIRST_STEP, f"--data={path}", f"--runs={folder}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        print(next(line for line in done.stdout.splitlines() if "first step" in line))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", nargs="+", choices=(*NETWORKS, "start"))
    parser.add_argument("--images", type=int, help="training images an epoch")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{platform.platform()}, {device}, {torch.get_num_threads()} threads, "
          f"torch {torch.__version__}", flush=True)  # fmt: skip
    for name in args.network or (*NETWORKS, "start"):
        if name == "start":
            start_times()
        else:
            compare(name, args.images, args.repeats)


if __name__ == "__main__":
    main()
