"""Print how much memory filtering takes: three numbers.

The memory of a pass over 6,000 points, in kernel tiles; then the peak MB of the process while it
measures 20 and 100 epochs in blocks of 20.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from measures import bands
from measures.gaussian import TILE_BYTES, filter_columns


def memory(field: str) -> int:
    """Bytes in a field of this process's status (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def peak(work: Callable[[int], None], count: int) -> int:
    """The most bytes that the process has during a call."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    work(count)
    return memory("VmHWM")


def run_pass(count: int) -> None:
    filter_columns(10 * torch.randn(count, 20), torch.rand(count, 3, 10), 1, [30, 100, 1000])


def measure(epochs: int) -> None:
    points, labels = torch.randn(500, 192), np.eye(100)[np.arange(500) % 100][None]
    logits = np.broadcast_to(np.float32(labels), (epochs, 500, 100))
    measures = {"softmax": [bands.original_ratios, bands.relative_errors]}
    bands.measure_section(points, labels, logits, measures, [400])


run_pass(50)  # what the libraries take
before = memory("VmRSS")
print((peak(run_pass, 6000) - before) / TILE_BYTES)
bands.OUTPUT_BYTES = 4 * 10**6
print(peak(measure, 20) / 1e6, peak(measure, 100) / 1e6)
