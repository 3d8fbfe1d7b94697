"""Print how much memory a pass over 6,000 points takes, in kernel tiles."""

from pathlib import Path

import torch

from analysis.gaussian_filter import TILE_BYTES, filter_sums

DELTAS = [1, 10, *range(100, 1001, 100)]


def peak_bytes() -> int:
    """The most memory that this process has held so far (Linux)."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def run_pass(count: int) -> None:
    filter_sums(
        10 * torch.randn(count, 20), torch.rand(1, count, 10), torch.rand(2, count, 10), DELTAS
    )


run_pass(50)  # what the libraries take
before = peak_bytes()
run_pass(6000)
print((peak_bytes() - before) / TILE_BYTES)
