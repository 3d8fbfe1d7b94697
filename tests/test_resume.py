"""A run that is stopped at any instant and by any means goes on as if it had not been."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import SMALL_RUN, history, make_dataset

import checkpoint
import data
import runs
import train

ROOT = Path(__file__).parent.parent
RUN = Path("runs/small/dis1-small_cnn-seed0")


def assert_equal_runs(one, other, epochs):
    """Bit for bit: history less its times, logits, weights and momentum."""
    assert history(one) == history(other) and len(history(one)) == epochs
    for name in runs.LOGITS:
        assert (one / name).read_bytes() == (other / name).read_bytes()
    states = [checkpoint.read(run, "cpu") for run in (one, other)]
    for key, tensor in states[0]["model"].items():
        assert torch.equal(tensor, states[1]["model"][key])
    for key, state in states[0]["optimizer"]["state"].items():
        momentum = states[1]["optimizer"]["state"][key]["momentum_buffer"]
        assert torch.equal(state["momentum_buffer"], momentum)


class Stop(KeyboardInterrupt):
    """Ctrl-C at a chosen place."""


# Before an epoch's first byte is written, between its three writes, and after the last.
PLACES = ["append_logits", "append_history", "save", "after"]


@pytest.mark.parametrize("model", ["small_cnn", "shake_resnet"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", [1, 2, 4])
def test_stopping_and_resuming_equals_never_having_stopped(
    workplace, monkeypatch, script, model, place, number
):
    flags = [*SMALL_RUN, "--dis=1", "--epochs=5", f"--model={model}", "--depth=8", "--width=4"]
    assert script("train", *flags, "--run=whole")[0] == 0
    calls = []

    def stop_at(name):
        owner = checkpoint if name == "save" else runs
        original = getattr(owner, name)

        def stopping(*args):
            calls.append(name)
            first = 1 if name == "save" else 0  # the start's own checkpoint
            if calls.count(name) == number + first and place == name:
                raise Stop
            original(*args)
            if calls.count(name) == number + first and place == "after":
                raise Stop

        monkeypatch.setattr(owner, name, stopping)

    stop_at("save" if place == "after" else place)
    status, _, err = script("train", *flags, "--run=stopped")
    assert status == 130 and "--resume" in err and err.count("\n") == 1
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    assert script("train", *flags, "--run=stopped", "--resume")[0] == 0
    whole, stopped = Path("runs/small/whole"), Path("runs/small/stopped")
    assert_equal_runs(stopped, whole, 5)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_in_the_middle_of_an_epoch(workplace, name):
    data.write_dataset(Path("data/small.npz"), make_dataset(train=600, test=40))
    flags = [*SMALL_RUN, "--epochs=4", "--dis=1"]
    command = [sys.executable, str(ROOT / "train.py"), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = process.stdout.readline()
    assert "cpu" in first.lower() and "self-distillation" in first
    process.stdout.readline()
    time.sleep(0.05)
    os.kill(process.pid, getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.count("\n") == 1 and "--resume" in err
    assert 1 <= len(history(RUN)) < 4
    assert train.main([*flags, "--resume"]) == 0
    assert train.main([*flags, "--run=whole"]) == 0
    assert_equal_runs(RUN, Path("runs/small/whole"), 4)


# Forks of a process that has loaded torch but not used it start at once, so that many fit a test.
KILLER = """
import os, random, signal, sys, time
import train

def start(flags, name, resume):
    child = os.fork()
    if not child:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, 1)
        os._exit(train.main([*flags, "--run", name] + ["--resume"] * resume))
    return child

flags, wanted = sys.argv[2:], int(sys.argv[1])
began = time.time()
os.waitpid(start(flags, "whole", False), 0)
length = time.time() - began
draw, kills, runs = random.Random(0), 0, []
while kills < wanted:
    name = f"killed{len(runs)}"
    runs.append(name)
    status = -1
    while status:
        resume = os.path.exists(f"runs/small/{name}/config.json")
        child = start(flags, name, resume)
        time.sleep(draw.uniform(0, 1.1 * length) if kills < wanted else 0)
        if kills < wanted:
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        kills += status == signal.SIGKILL
        assert status in (0, signal.SIGKILL), status
print(kills, *runs)
"""


@pytest.mark.parametrize("teacher", ["batch", "previous-epoch"])
def test_kill_9_at_any_instant(workplace, teacher):
    # Much to write and little to train, so that many kills hit a write.
    data.write_dataset(Path("data/small.npz"), make_dataset(train=20, test=1000))
    flags = [*SMALL_RUN, "--epochs=3", "--dis=1", "--model=shake_resnet", "--depth=8", "--width=4"]
    command = [sys.executable, "-c", KILLER, "16", *flags, f"--teacher={teacher}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    kills, *names = done.stdout.split()
    assert int(kills) >= 16
    for name in names:
        assert_equal_runs(Path("runs/small/whole"), Path("runs/small") / name, 3)
        assert not list((Path("runs/small") / name).glob("*.tmp"))


def test_a_disk_that_fills_up(workplace):
    data.write_dataset(Path("data/small.npz"), make_dataset(test=3000))
    flags = [*SMALL_RUN, "--epochs=6", "--model=shake_resnet", "--depth=8", "--width=4"]
    limited = "import resource, sys, train; limit = resource.RLIMIT_FSIZE\n"
    limited += "resource.setrlimit(limit, (int(sys.argv[1]), resource.RLIM_INFINITY))\n"
    limited += "sys.exit(train.main(sys.argv[2:]))"
    # Four epochs of 48,000 bytes of logits fit, the fifth does not.
    command = [sys.executable, "-c", limited, "220000", *flags, "--run=full"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    full, whole = Path("runs/small/full"), Path("runs/small/whole")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "File too large" in done.stderr and "--resume" in done.stderr
    assert checkpoint.read(full, "cpu")["epoch"] == 4 and len(history(full)) == 4
    assert train.main([*flags, "--run=full", "--resume"]) == 0
    assert train.main([*flags, "--run=whole"]) == 0
    assert_equal_runs(full, whole, 6)


def test_a_second_process_is_refused(workplace, refused):
    data.write_dataset(Path("data/small.npz"), make_dataset(train=2000))
    flags = [*SMALL_RUN, "--epochs=50"]
    command = [sys.executable, str(ROOT / "train.py"), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        process.stdout.readline()
        message = refused("train", *flags, "--resume")
        assert f"process {process.pid}" in message and "--run" in message
        assert f"process {process.pid}" in refused("train", *flags, "--overwrite")
    finally:
        process.kill()
        process.wait()
    # It is dead now: its lock holds nobody up.
    assert (RUN.parent / "dis0-small_cnn-seed0/lock").exists()
    assert train.main([*SMALL_RUN, "--epochs=1", "--overwrite"]) == 0


def test_a_damaged_checkpoint_is_refused_and_the_offer_works(study, refused, script):
    flags = [*SMALL_RUN, "--dis=1", "--epochs=3", "--resume"]
    before = (RUN / "logits.npy").read_bytes()
    raw = bytearray((RUN / "checkpoint.pt").read_bytes())
    raw[len(raw) // 2] ^= 1
    (RUN / "checkpoint.pt").unlink()
    (RUN / "checkpoint.pt").write_bytes(raw)
    message = refused("train", *flags)
    assert "damaged" in message and "epoch 2" in message
    assert (RUN / "logits.npy").read_bytes() == before
    words = message.split("with: ")[1].split(",")[0].split()
    assert words[0] == "mv"
    os.replace(*words[1:])
    assert script("train", *flags)[0] == 0
    assert (RUN / "logits.npy").read_bytes() == before
