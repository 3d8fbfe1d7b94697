"""common/file_lock.py and generate.py --if-missing: a file is made once, the others wait."""

import errno
from pathlib import Path

import filelock
import pytest
from helpers import ROOT, start_python

from common.file_lock import making
from dataset.data_file import read_dataset

FLAGS = ["--dataset", "shapes", "--train-size", 40, "--test-size", 20, "--out", "data/a.npz"]
PATH = Path("data/a.npz")


@pytest.mark.slow
def test_two_processes_at_once_make_a_data_set_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # While this process holds the lock, both have to wait, so that they begin together.
    with making(PATH):
        processes = [start_python(ROOT / "generate.py", *FLAGS, "--if-missing") for _ in range(2)]
        first_lines = [process.stdout.readline() for process in processes]
        assert first_lines == ["waiting: another process is making data/a.npz\n"] * 2
        assert not PATH.exists()
    ends = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert [err for _, err in ends] == ["", ""]
    outs = sorted(out for out, _ in ends)
    assert "written: data/a.npz" in outs[0] and outs[1] == "exists: data/a.npz\n"
    assert len(read_dataset(PATH).train_labels) == 40
    assert [path.name for path in Path("data").iterdir()] == ["a.npz"]


def test_the_lock_is_free_after_a_failure_and_leaves_no_file(refused, script, workplace):
    refused("generate", *FLAGS, "--val-size", 40, "--if-missing")
    assert [path.name for path in Path("data").iterdir()] == ["small.npz"]
    assert script("generate", *FLAGS, "--if-missing")[0] == 0


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "no locks"), NotImplementedError()])
def test_a_file_system_without_locks_still_works(script, workplace, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    status, out, _ = script("generate", *FLAGS, "--if-missing")
    assert status == 0 and "written: data/a.npz" in out


def test_another_error_of_the_lock_is_said(refused, workplace, monkeypatch):
    def fail(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied", "data/a.npz.lock")

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    assert "data/a.npz.lock: Permission denied" in refused("generate", *FLAGS, "--if-missing")
