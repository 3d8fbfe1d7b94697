"""training/together.py: on two processes that torchrun starts, any failure is one true line."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch.distributed as dist
from helpers import PROGRAMS, ROOT, SMALL_RUN, environment, folder_bytes, history, start_python

from training import checkpoint, together

RUN = Path("runs/small/a")
FLAGS = [*SMALL_RUN, "--epochs=3", "--run=a"]
FAILING = PROGRAMS / "train_with_failing_rank.py"
LIMITED = PROGRAMS / "train_with_file_limit.py"
SECONDS = 15  # from the failure of one process to the end of all


def start_two(*words):
    """Start python on two processes; their errors go to files, apart from torchrun's own."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *torchrun, "--redirects=2", "--log-dir=logs", "--", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*map(str, command)], stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment()
    )


def errors_of_failure(process):
    """What the processes of start_two say on standard error; all have failed, and in time."""
    process.communicate()
    ended = time.time()
    assert process.returncode != 0
    logs = {path: path.read_text() for path in Path("logs").rglob("stderr.log")}
    (log,) = [path for path, text in logs.items() if text]
    assert len(logs) == 2 and ended - log.stat().st_mtime < SECONDS
    return logs[log]


def line_of_failure(*words):
    """The one line that two processes say when one of them fails."""
    text = errors_of_failure(start_two(*words))
    assert text.startswith("train.py: ") and text.count("\n") == 1
    return text


@pytest.fixture
def existing_run(workplace, script):
    """A run of three epochs whose checkpoint is put back to epoch 2; returns its files."""
    assert script("train", *FLAGS)[0] == 0
    os.replace(RUN / checkpoint.PREVIOUS, RUN / checkpoint.NAME)
    return folder_bytes(RUN)


@pytest.mark.slow
def test_data_missing_in_one_process(existing_run):
    line = line_of_failure(FAILING, "miss_data", *FLAGS, "--overwrite")
    assert "data/small.npz: no such file" in line
    assert folder_bytes(RUN) == existing_run


@pytest.mark.slow
def test_a_run_exists_while_a_process_still_reads(existing_run):
    line = line_of_failure(FAILING, "read_slowly", *FLAGS)
    assert f"{RUN} exists; use --resume" in line
    assert folder_bytes(RUN) == existing_run


@pytest.mark.slow
def test_nobody_sends_a_signal(existing_run):
    # torchrun on another machine does not: the processes have to see for themselves.
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1])}
    command = [sys.executable, FAILING, "read_slowly", *FLAGS]
    pipe = subprocess.PIPE
    waiting, failing = (
        subprocess.Popen(
            command,
            env={**environment(), **address, "WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank},
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        for rank in "01"
    )
    out, err = failing.communicate()
    assert failing.returncode != 0 and out == "" and f"{RUN} exists" in err
    try:
        assert waiting.communicate(timeout=SECONDS) == ("", "")
    finally:
        waiting.kill()
    assert waiting.returncode == 1 and folder_bytes(RUN) == existing_run


@pytest.mark.slow
def test_another_process_holds_the_lock(existing_run):
    with start_python(PROGRAMS / "hold_lock.py", RUN) as holder:
        assert holder.stdout.readline() == "held\n"
        line = line_of_failure(ROOT / "train.py", *FLAGS, "--resume")
        holder.kill()
    assert f"process {holder.pid} on " in line and "is training it" in line
    assert {**folder_bytes(RUN), "lock": existing_run["lock"]} == existing_run


@pytest.mark.slow
def test_a_full_disk(existing_run):
    limit = len(existing_run["checkpoint.pt"]) - 1
    line = line_of_failure(LIMITED, limit, *FLAGS, "--resume")
    assert "File too large" in line and "make room there" in line
    assert folder_bytes(RUN)["checkpoint.pt"] == existing_run["checkpoint.pt"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        ("fail_with_error", "epoch 2, step 1: the loss is not finite"),
        ("be_killed", "another process ended; go on with the same flags and --resume"),
    ],
)
def test_a_process_fails_within_an_epoch(workplace, script, failure, reason):
    assert reason in line_of_failure(FAILING, failure, *FLAGS)
    before = history(RUN)
    assert len(before) == 1 and checkpoint.read(RUN, "cpu")["epoch"] == 1
    status, out, _ = script("train", *FLAGS, "--resume")
    assert status == 0 and "from epoch 2" in out
    assert len(history(RUN)) == 3 and history(RUN)[:1] == before


@pytest.mark.slow
def test_a_fault_of_the_program_is_traced_once(workplace):
    text = errors_of_failure(start_two(FAILING, "have_fault", *FLAGS))
    assert text.count("Traceback") == text.count("ZeroDivisionError") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", together.SIGNALS)
def test_torchrun_is_interrupted(workplace, number):
    process = start_two(ROOT / "train.py", *FLAGS, "--epochs=1000")
    while "epoch 1/" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(number)
    line = errors_of_failure(process)
    assert line == (
        "train.py: interrupted, or another process ended; go on with the same flags and --resume\n"
    )


def test_one_process_is_left_alone():
    before = [signal.getsignal(number) for number in together.SIGNALS]
    with pytest.raises(ZeroDivisionError), together.together("train.py", "go on"):
        assert [signal.getsignal(number) for number in together.SIGNALS] == before
        raise ZeroDivisionError


def test_the_first_to_fail_by_hand(monkeypatch):
    store = dist.TCPStore("127.0.0.1", 0, is_master=True)
    other = dist.TCPStore("127.0.0.1", store.port, is_master=False)
    assert not together._has_failed(other)
    assert together._is_first_to_fail(store)
    assert together._has_failed(other) and not together._is_first_to_fail(other)
    # After a restart by torchrun nothing has failed yet.
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert not together._has_failed(other) and together._is_first_to_fail(other)
    # Where nobody can be asked, a process speaks for itself.
    del store
    assert not together._has_failed(other) and together._is_first_to_fail(other)


@pytest.mark.parametrize(
    ("error", "of_connection"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:561] Connection closed by peer"), True),
        (dist.DistBackendError("NCCL error"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (OSError("gloo"), False),
    ],
)
def test_errors_of_a_connection(error, of_connection):
    assert together._is_of_connection(error) == of_connection
