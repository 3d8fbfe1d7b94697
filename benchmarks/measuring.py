"""Tools of the benchmarks: random images, peak memory, the speed of a matrix product."""

import platform
import re
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from dataset.batches import normalize
from dataset.data_file import DataSet


def machine() -> dict:
    """The machine that a time was measured on."""
    return {
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
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
    """Reset the peak memory that is measured."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> float:
    """Peak GB of this process, or on the GPU, since the last reset; 0 where it is unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1e6


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a matrix product."""
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
    """Floating-point operations per image of one training step. images: uint8 (B, H, W, 3)."""
    with FlopCounterMode(display=False) as counter:
        model(normalize(images)).sum().backward()
    return counter.get_total_flops() / len(images)
