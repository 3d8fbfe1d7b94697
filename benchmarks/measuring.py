"""What the benchmarks share: the machine's name, times, peak memory, the speed of a product."""

import multiprocessing
import platform
import re
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch


def machine(device: torch.device) -> str:
    """The machine that a time is measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    found = cpuinfo.exists() and re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text())
    words = [found[1] if found else platform.machine(), f"{torch.get_num_threads()} threads"]
    if device.type == "cuda":
        words.insert(0, torch.cuda.get_device_name())
    return ", ".join([*words, f"torch {torch.__version__}"])


def seconds(work: Callable[[], object], device: torch.device) -> tuple[float, object]:
    """Seconds that a call takes, with the work that it queues on the device, and its result."""
    start = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def peak_memory(device: torch.device) -> float:
    """Peak GB of this process since its start, libraries included; of the GPU, if it is one."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status")
    if status.exists():
        # On Linux, ru_maxrss would include the process that started this one.
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # macOS: bytes


def alone(work: Callable, *args):
    """What a call returns in a process of its own: neither memory nor caches are shared."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *args).result()


def product_rate(rows: int, inner: int, columns: int, device, dtype=torch.float32) -> float:
    """Floating-point operations per second of (rows, inner) @ (inner, columns).

    The best of several: what the device can do. A multiplication and an addition are two.
    """
    a = torch.rand(rows, inner, device=device, dtype=dtype)
    b = torch.rand(inner, columns, device=device, dtype=dtype)
    best = min(seconds(lambda: a @ b, device)[0] for _ in range(8))
    return 2.0 * rows * inner * columns / best
