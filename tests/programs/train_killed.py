"""Train runs that are killed at random instants and resumed until they are complete.

    python train_killed.py 20 "<flags of train.py>" "<flags of others>" ...

For each string of flags, side by side, runs are killed 20 times; every other run is resumed with
--resume auto. Prints a line with how often and with the runs' names; the first is never killed.
A fork of a process that has loaded torch but not used it starts at once, so that many kills fit a
test and hit the training.
"""

import os
import random
import signal
import sys
import time

import torch._dynamo  # noqa: F401  (what the first step of an optimizer loads)

import train
import training.run  # noqa: F401  (loads torch before the first fork)


def exit_status(flags: list[str], name: str, seconds: float = 0) -> int:
    """Train in a new process, without output; the system kills it after `seconds`, if not 0."""
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        signal.setitimer(signal.ITIMER_REAL, seconds)  # SIGALRM ends a process at once, as -9 does
        os._exit(train.main([*flags, f"--run={name}"]))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill_runs(number: int, wanted: int, flags: list[str]) -> None:
    began, names = time.perf_counter(), [f"whole{number}"]
    assert exit_status(flags, names[0]) == 0
    longest = 1.1 * (time.perf_counter() - began)
    draw, kills = random.Random(number), 0
    while kills < wanted:
        names.append(f"killed{number}-{len(names)}")
        status = None
        while status != 0:
            exists = os.path.exists(f"runs/small/{names[-1]}/config.json")
            by_hand = ["--resume"] if exists else []
            resume = by_hand if len(names) % 2 else ["--resume=auto"]
            seconds = draw.uniform(0.001, longest) if kills < wanted else 0
            status = exit_status([*flags, *resume], names[-1], seconds)
            kills += status == -signal.SIGALRM
            assert status in (0, -signal.SIGALRM), status
    print(kills, *names, flush=True)


children = []
for number, flags in enumerate(sys.argv[2:]):
    children.append(os.fork())
    if not children[-1]:
        kill_runs(number, int(sys.argv[1]), flags.split())
        os._exit(0)
sys.exit(any(os.waitpid(child, 0)[1] for child in children))
