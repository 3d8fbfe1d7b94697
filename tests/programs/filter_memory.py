"""Print how much memory filtering takes: three numbers.

The memory of a pass over 6,000 points, in kernel tiles; then the peak MB of runs of 20 and of 100
epochs in blocks of 20, of memory that is not mapped from files.
"""

import threading
from pathlib import Path

import numpy as np
import torch

from measures import bands
from measures.gaussian import TILE_BYTES, filter_columns


def memory(field: str) -> int:
    """Bytes in a field of this process's status (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def run_pass(count: int) -> None:
    filter_columns(10 * torch.randn(count, 20), torch.rand(count, 3, 10), 1, [30, 100, 1000])


def peak_of(epochs: int) -> float:
    """The most anonymous memory, in MB, while that many epochs are filtered; looked at often."""
    peak, done = 0, threading.Event()
    points, labels = torch.randn(500, 192), np.eye(100)[np.arange(500) % 100][None]
    logits = np.broadcast_to(np.float32(labels), (epochs, 500, 100))

    def watch():
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, memory("RssAnon"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    measures = {"softmax": [bands.original_ratios, bands.relative_errors]}
    bands.measure_section(points, labels, logits, measures, [400])
    done.set()
    watcher.join()
    return peak / 1e6


run_pass(50)  # what the libraries take
before = memory("VmHWM")
run_pass(6000)
print((memory("VmHWM") - before) / TILE_BYTES)
bands.OUTPUT_BYTES = 4 * 10**6
print(peak_of(20), peak_of(100))
