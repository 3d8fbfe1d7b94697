"""Print how much memory filtering takes.

filter_memory.py               a pass over 6,000 points: in kernel tiles
filter_memory.py 4194304 RUN   frequency.py for each run in turn, with blocks of so many bytes:
                               peak bytes, of which pages mapped from files are no part
"""

import sys
import threading
from pathlib import Path

import torch

import frequency
from analysis import run_groups
from analysis.gaussian_filter import TILE_BYTES, filter_sums

DELTAS = [1, 10, *range(100, 1001, 100)]


def memory(field: str) -> int:
    """Bytes in a field of this process's status (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(f"{field}:")[1].split()[0])


def run_pass(count: int) -> None:
    filter_sums(
        10 * torch.randn(count, 20), torch.rand(1, count, 10), torch.rand(2, count, 10), DELTAS
    )


def peak_of(run: str) -> int:
    """The most anonymous memory while a run is filtered, looked at every 2 ms."""
    peak, done = 0, threading.Event()

    def watch():
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, memory("RssAnon"))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    assert frequency.main([run, "--delta", "400", "--device", "cpu"]) == 0
    done.set()
    watcher.join()
    return peak


if len(sys.argv) > 1:
    run_groups.OUTPUT_BYTES = int(sys.argv[1])
    print(*map(peak_of, sys.argv[2:]))
else:
    run_pass(50)  # what the libraries take
    before = memory("VmHWM")
    run_pass(6000)
    print((memory("VmHWM") - before) / TILE_BYTES)
