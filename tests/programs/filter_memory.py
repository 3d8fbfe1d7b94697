"""Print how much memory filtering takes.

filter_memory.py               a pass over 6,000 points: in kernel tiles
filter_memory.py 4000000 20 200
                               runs of 20 and of 200 epochs, in blocks of so many bytes of logits:
                               peak bytes of memory that is not mapped from files
"""

import sys
import threading
from pathlib import Path

import numpy as np
import torch

from measures import bands
from measures.gaussian import TILE_BYTES, filter_columns

DELTAS = [1, 10, *range(100, 1001, 100)]


def memory(field: str) -> int:
    """Bytes in a field of this process's status (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def run_pass(count: int) -> None:
    filter_columns(10 * torch.randn(count, 20), torch.rand(count, 3, 10), 1, DELTAS)


def peak_of(epochs: int) -> int:
    """The most anonymous memory while that many epochs are filtered, looked at every 2 ms."""
    peak, done = 0, threading.Event()
    images = np.random.default_rng(0).integers(0, 256, (500, 8, 8, 3), np.uint8)
    labels = np.eye(100)[np.arange(500) % 100][None]
    logits = np.broadcast_to(np.float32(labels), (epochs, 500, 100))

    def watch():
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, memory("RssAnon"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    how = bands.Filter([400], "softmax", torch.device("cpu"))
    kinds = {"outputs": ("softmax", (bands.original_ratios, bands.relative_errors))}
    bands.measure_section(images, labels, logits, kinds, how)
    done.set()
    watcher.join()
    return peak


if len(sys.argv) > 1:
    bands.OUTPUT_BYTES = int(sys.argv[1])
    print(*map(peak_of, map(int, sys.argv[2:])))
else:
    run_pass(50)  # what the libraries take
    before = memory("VmHWM")
    run_pass(6000)
    print((memory("VmHWM") - before) / TILE_BYTES)
