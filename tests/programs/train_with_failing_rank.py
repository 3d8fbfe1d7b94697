"""Train, where one of two processes that torchrun started fails.

    torchrun --nproc-per-node=2 -- train_with_failing_rank.py <failure> <flags of train.py>

The failures are the functions below. In epoch 2, the process fails while the other one waits for it
in a collective.
"""

import os
import signal
import sys
import time
from pathlib import Path

import train
from training import distributed, run

train_epoch, read_dataset = run.train_epoch, run.read_dataset


def miss_data():
    """The second process does not find the data set."""
    if distributed.rank() == 1:
        Path("elsewhere").mkdir()
        os.chdir("elsewhere")


def read_slowly():
    """The first process reads for longer than the second one takes to fail."""

    def read(path):
        if distributed.is_main():
            time.sleep(60)
        return read_dataset(path)

    run.read_dataset = read


def fail_in_epoch(fail):
    """The second process calls `fail` at a step of epoch 2."""

    def train_with_failure(model, optimizer, train_set, settings, epoch, *rest):
        if epoch == 2 and distributed.rank() == 1:
            optimizer.step = fail
        return train_epoch(model, optimizer, train_set, settings, epoch, *rest)

    run.train_epoch = train_with_failure


def raise_error():
    raise run.NonFiniteLossError("epoch 2, step 1: the loss is not finite")


def fail_with_error():
    """The second process raises an error of its own within an epoch."""
    fail_in_epoch(raise_error)


def be_killed():
    """The second process is killed within an epoch, and says nothing."""
    fail_in_epoch(lambda: os.kill(os.getpid(), signal.SIGKILL))


def have_fault():
    """The second process has a fault of the program, whose traceback is of use."""
    fail_in_epoch(lambda: 1 // 0)


globals()[sys.argv[1]]()
sys.exit(train.main(sys.argv[2:]))
