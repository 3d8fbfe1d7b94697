"""End child processes cleanly, so that a run keeps its last whole epoch."""

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

TICK = 0.1  # seconds between two checks of the processes
PATIENCE = 15.0  # seconds that a process has to end after SIGINT


def stop(processes: Sequence[subprocess.Popen], received: list[int]) -> None:
    """End processes and their children: SIGINT, and SIGKILL after PATIENCE or a second signal."""
    signals = len(received)
    for number, patience in ((signal.SIGINT, PATIENCE), (signal.SIGKILL, PATIENCE)):
        for process in processes:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, number)
        end = time.monotonic() + patience
        while any(process.poll() is None for process in processes):
            if time.monotonic() > end or (len(received) > signals and number == signal.SIGINT):
                break
            time.sleep(TICK / 2)
