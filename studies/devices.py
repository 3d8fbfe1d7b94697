"""The GPUs and cores of this machine, and how jobs side by side share them."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs as CUDA_VISIBLE_DEVICES names them; empty if there is none."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [word.strip() for word in named.split(",") if word.strip() not in ("", "-1")]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return re.findall(r"^GPU (\d+):", done.stdout, re.MULTILINE) if not done.returncode else []


def usable_cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_jobs(gpus: Sequence[str], cores: int) -> int:
    """Runs side by side: one on each GPU, or at most two on a CPU."""
    return len(gpus) or min(2, cores)


def slot_environments(
    jobs: int, gpus: Sequence[str], cores: int, environment: Mapping[str, str]
) -> list[dict[str, str]]:
    """For each job side by side, its own GPU if there are several, and its share of the cores.

    OMP_NUM_THREADS is left alone if the user has set it.
    """
    threads = {"OMP_NUM_THREADS": str(max(1, cores // jobs))}
    if "OMP_NUM_THREADS" in environment:
        threads = {}
    if len(gpus) < 2:
        return [dict(threads) for _ in range(jobs)]
    return [{**threads, "CUDA_VISIBLE_DEVICES": gpus[job % len(gpus)]} for job in range(jobs)]
