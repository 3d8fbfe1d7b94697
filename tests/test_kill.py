"""A run that is killed at any instant and by any means goes on as if it had not been."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from helpers import (
    PROGRAMS,
    ROOT,
    SMALL_RUN,
    assert_equal_runs,
    history,
    make_dataset,
    run_python,
    start_python,
)

import train
from dataset.data_file import write_dataset
from training import checkpoint

pytestmark = pytest.mark.slow

SMALL_SHAKE = ["--model=shake_resnet", "--depth=8", "--width=4"]
WHOLE = Path("runs/small/whole")


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_signal_in_the_middle_of_an_epoch(workplace, name):
    write_dataset(Path("data/small.npz"), make_dataset(train=600, test=40))
    flags, run = [*SMALL_RUN, "--epochs=4", "--dis=1"], Path("runs/small/dis1-small_cnn-seed0")
    process = start_python(ROOT / "train.py", *flags)
    first_line = process.stdout.readline()
    assert "cpu" in first_line.lower() and "self-distillation" in first_line
    process.stdout.readline()
    time.sleep(0.05)
    os.kill(process.pid, getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.count("\n") == 1 and "--resume" in err
    assert 1 <= len(history(run)) < 4
    assert train.main([*flags, "--resume"]) == 0
    assert train.main([*flags, "--run=whole"]) == 0
    assert_equal_runs(run, WHOLE, 4)


def test_kill_9_at_any_instant(tmp_path):
    # Each teacher in a folder and a process of its own, on a core each.
    processes = {}
    for teacher in ("batch", "previous-epoch"):
        folder = tmp_path / teacher
        # Much to write and little to train, so that many kills hit a write.
        write_dataset(folder / "data/small.npz", make_dataset(train=20, test=1000))
        flags = [*SMALL_RUN, *SMALL_SHAKE, "--epochs=3", "--dis=1", f"--teacher={teacher}"]
        processes[folder] = start_python(PROGRAMS / "train_killed.py", 40, *flags, cwd=folder)
    for folder, process in processes.items():
        out, err = process.communicate()
        assert process.returncode == 0, err
        kills, *names = out.split()
        assert int(kills) >= 40 and names
        whole = folder / WHOLE
        for name in names:
            assert_equal_runs(whole, whole.with_name(name), 3)
            assert not list(whole.with_name(name).glob("*tmp"))


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_disk_that_fills_up(workplace):
    write_dataset(Path("data/small.npz"), make_dataset(test=3000))
    flags = [*SMALL_RUN, *SMALL_SHAKE, "--epochs=6"]
    # Four epochs of 48,000 bytes of logits fit, the fifth does not.
    done = run_python(PROGRAMS / "train_with_file_limit.py", 220_000, *flags, "--run=full")
    full = WHOLE.with_name("full")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "File too large" in done.stderr and "--resume" in done.stderr
    assert checkpoint.read(full, "cpu")["epoch"] == 4 and len(history(full)) == 4
    assert train.main([*flags, "--run=full", "--resume"]) == 0
    assert train.main([*flags, "--run=whole"]) == 0
    assert_equal_runs(full, WHOLE, 6)


def test_second_process_is_refused(workplace, refused):
    write_dataset(Path("data/small.npz"), make_dataset(train=2000))
    flags = [*SMALL_RUN, "--epochs=50"]
    process = start_python(ROOT / "train.py", *flags)
    try:
        process.stdout.readline()
        for flag in ("--resume", "--resume=auto", "--overwrite"):
            message = refused("train", *flags, flag)
            assert f"process {process.pid}" in message and "--run" in message
    finally:
        process.kill()
        process.communicate()
    # The lock of a process that has ended stops nobody, though its file is still there.
    assert Path("runs/small/dis0-small_cnn-seed0/lock").exists()
    assert train.main([*SMALL_RUN, "--epochs=1", "--overwrite"]) == 0


def test_files_of_a_killed_process_are_removed(study, script):
    run = Path("runs/small/dis1-small_cnn-seed0")
    names = ["history.jsonl.4242.tmp", "checkpoint.pt.4242.tmp", "checkpoint.prev.pt.tmp"]
    for name in names:
        (run / name).write_bytes(b"half")
    (run / "notes.tmp").write_text("not a file of the run")
    assert script("train", *SMALL_RUN, "--dis=1", "--epochs=3", "--resume")[0] == 0
    assert [path.name for path in run.glob("*tmp")] == ["notes.tmp"]
