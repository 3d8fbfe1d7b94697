"""Time whole epochs against plain_training.py, both in one process, alternately: `make bench`.

    python benchmarks/training_speed.py                    all three networks
    python benchmarks/training_speed.py --network small_cnn --repeats 5 --images 50000
    python benchmarks/training_speed.py --network start    time to the first step

An epoch is one pass over the training images and one over a fifth as many test images. The floor is
the number of floating-point operations of the network, counted by torch's FlopCounterMode over one
training step (a multiplication and an addition are two; convolutions and linear layers, forward and
backward), at the rate of a large matrix product measured between the epochs. Times are medians.
"""

import argparse
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).parent.parent))

from plain_training import plain_epoch, plain_model

from dataset.batches import normalize
from dataset.data_file import DataSet, read_dataset, write_dataset
from training.epoch import train_epoch
from training.prepare import MOMENTUM, make_model, prepare, prepare_device
from training.settings import RunSettings
from training.statistics import evaluate

FIRST_STEP = Path(__file__).with_name("first_step.py")
# Settings of a run, and how many training images make an epoch here on a CPU.
NETWORKS = {
    "shake26-2x32d": ({"batch_size": 128}, 768),
    "shake14-2x8d": ({"depth": 14, "width": 8, "batch_size": 64}, 4096),
    "small_cnn": ({"model": "small_cnn", "batch_size": 128}, 8192),
}


def random_dataset(count: int, tests: int) -> DataSet:
    """`count` training and `tests` test images of random pixels and labels, none held out."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count + tests, 32, 32, 3), np.uint8)
    labels = random.integers(0, 10, count + tests)
    return DataSet(
        train_images=images[:count],
        train_labels=labels[:count],
        clean_labels=labels[:count],
        val_images=images[:0],
        val_labels=labels[:0],
        test_images=images[count:],
        test_labels=labels[count:],
        class_names=[f"class {k}" for k in range(10)],
        meta={},
    )


def reset_peak_memory(device: torch.device) -> None:
    """Start to measure peak memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> float:
    """Peak GB of this process, or on the GPU, since the last reset; NaN where it is unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1e6


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of a matrix product."""
    size = 8192 if device.type == "cuda" else 2048
    a = torch.randn(size, size, device=device, dtype=dtype)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        _ = a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


def operations(model: torch.nn.Module, images: torch.Tensor) -> float:
    """Floating-point operations of one training step, an image. images: uint8 (B, H, W, 3)."""
    with FlopCounterMode(display=False) as counter:
        model(normalize(images)).sum().backward()
    return counter.get_total_flops() / len(images)


class ProjectLoop:
    """Epochs of this project, and the images a second of their training alone."""

    def __init__(self, settings: RunSettings, dataset: DataSet, device: torch.device):
        arrays = (dataset.train_images, dataset.train_labels, dataset.clean_labels)
        self.train_set = [torch.from_numpy(array).to(device) for array in arrays]
        self.test_images = torch.from_numpy(dataset.test_images).to(device)
        self.model, self.optimizer = prepare(settings, dataset, device)
        self.settings, self.training_rates = settings, []

    def __call__(self) -> None:
        start = time.perf_counter()
        train_epoch(self.model, self.optimizer, self.train_set, self.settings, epoch=1)
        self.training_rates.append(len(self.train_set[0]) / (time.perf_counter() - start))
        evaluate(self.model, self.test_images).cpu()


def reference_loop(settings: RunSettings, dataset: DataSet, device: torch.device) -> Callable:
    """A function that does one epoch of plain_training.py."""
    model = plain_model(make_model(settings, dataset)).to(device)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=settings.lr,
        momentum=MOMENTUM,
        weight_decay=settings.weight_decay,
        nesterov=True,
    )
    train_set = dataset.train_images, dataset.train_labels
    test_set = dataset.test_images, dataset.test_labels
    return lambda: plain_epoch(model, optimizer, train_set, test_set, settings.batch_size, device)


def compare(name: str, images: int | None, repeats: int) -> None:
    """Print one network's line: both loops' images a second, their ratio, memory, the floor."""
    flags, cpu_images = NETWORKS[name]
    device, settings, _ = prepare_device(RunSettings(epochs=1000, **flags))
    count = images or (50_000 if device.type == "cuda" else cpu_images)
    dataset = random_dataset(count, count // 5)
    project = ProjectLoop(settings, dataset, device)
    loops = {"project": project, "reference": reference_loop(settings, dataset, device)}
    per_image = operations(project.model, project.train_set[0][: settings.batch_size])
    dtype = torch.bfloat16 if settings.amp else torch.float32
    times: dict[str, list[float]] = {loop: [] for loop in loops}
    memory, matrix_rates = dict.fromkeys(loops, 0.0), []
    for _ in range(repeats + 1):
        for loop, run_epoch in loops.items():
            reset_peak_memory(device)
            start = time.perf_counter()
            run_epoch()
            times[loop].append(time.perf_counter() - start)
            memory[loop] = max(memory[loop], peak_memory(device))
            matrix_rates.append(matrix_rate(device, dtype))
    # The first epoch of each is a rehearsal.
    speed, plain_speed = (count / float(np.median(times[loop][1:])) for loop in loops)
    training, rate = float(np.median(project.training_rates[1:])), float(np.median(matrix_rates))
    print(
        f"{name}: {speed:.0f} images/s, reference {plain_speed:.0f}, "
        f"{speed / plain_speed:.2f} times; peak {memory['project']:.2f} GB, reference "
        f"{memory['reference']:.2f}; training alone {training:.0f} images/s of "
        f"{per_image / 1e6:.1f} MFLOP each: {training * per_image / rate:.0%} of the "
        f"{rate / 1e9:.0f} GFLOP/s of a {str(dtype).removeprefix('torch.')} matrix product",
        flush=True,
    )


def start_times() -> None:
    """Print how long a data set of CIFAR-10's size takes to read, and a run to its first step."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.npz"
        write_dataset(path, random_dataset(50_000, 10_000))
        start = time.perf_counter()
        read_dataset(path).sha256  # noqa: B018
        print(f"reading 60,000 images: {time.perf_counter() - start:.2f} s", flush=True)
        command = [sys.executable, str(FIRST_STEP), "--data", str(path)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", nargs="+", choices=(*NETWORKS, "start"))
    parser.add_argument("--images", type=int, help="training images an epoch")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    threads = torch.get_num_threads()
    print(
        f"{platform.platform()}, {device}, {threads} threads, torch {torch.__version__}",
        flush=True,
    )
    for name in args.network or (*NETWORKS, "start"):
        if name == "start":
            start_times()
        else:
            compare(name, args.images, args.repeats)


if __name__ == "__main__":
    main()
