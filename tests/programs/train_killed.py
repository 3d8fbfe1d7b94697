"""Train runs that are killed at random instants and resumed until they are complete.

    python train_killed.py 16 <flags of train.py>

Every other run is resumed with --resume auto. Prints how often a process was killed, and the names
of the runs; the run `whole` is never killed.
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


def start(flags: list[str], name: str, resume: list[str]) -> int:
    """Train in a new process, without output; returns the process's number."""
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os._exit(train.main([*flags, f"--run={name}", *resume]))
    return child


def exit_status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    wanted, flags = int(sys.argv[1]), sys.argv[2:]
    began = time.perf_counter()
    assert exit_status(start(flags, "whole", [])) == 0
    seconds = time.perf_counter() - began
    draw, kills, names = random.Random(0), 0, []
    while kills < wanted:
        name = f"killed{len(names)}"
        names.append(name)
        status = None
        while status != 0:
            exists = os.path.exists(f"runs/small/{name}/config.json")
            by_hand = ["--resume"] if exists else []
            child = start(flags, name, by_hand if len(names) % 2 else ["--resume=auto"])
            if kills < wanted:
                time.sleep(draw.uniform(0, 1.1 * seconds))
                os.kill(child, signal.SIGKILL)
            status = exit_status(child)
            kills += status == -signal.SIGKILL
            assert status in (0, -signal.SIGKILL), status
    print(kills, *names)


main()
