"""common/files.py: files are whole or not there, JSON objects, the lock beside a file."""

import errno
import subprocess
import sys
from pathlib import Path

import filelock
import pytest
from helpers import PROGRAMS, environment, start_python

from common.command_line import UserError
from common.files import atomic_write, making, read_json, write_json, write_text

MAKE = """
import sys
from pathlib import Path
from common.files import making, write_text
path = Path(sys.argv[1])
with making(path):
    if not path.exists():
        write_text(path, "made")
        print("made")
"""


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new/a.json"
    write_text(path, "old ü")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_text("utf-8") == "old ü" and len(list(path.parent.iterdir())) == 1
    for name in (path / "b", tmp_path / "new"):  # below a file; a folder
        with pytest.raises(OSError, match=str(name)):
            write_text(name, "x")
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]


def test_two_processes_that_write_one_file_do_not_mix(tmp_path):
    path = tmp_path / "a"
    command = [sys.executable, PROGRAMS / "write_repeatedly.py", path]
    writers = [subprocess.Popen([*command, c], stdout=-1, env=environment()) for c in "ab"]
    assert [writer.stdout.readline() for writer in writers] == [b"started\n"] * 2
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if path.exists():
            text = path.read_text()
            assert len(text) == 100_000 and len(set(text)) == 1
            seen |= set(text)
    assert [writer.wait() for writer in writers] == [0, 0] and seen <= {"a", "b"}
    assert list(tmp_path.iterdir()) == [path]


def test_json_objects(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": [1.5, None], "ü": "±"})
    assert read_json(path, "") == {"a": [1.5, None], "ü": "±"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("inf")})
    assert read_json(path, "")["a"] == [1.5, None] and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[1]", b"3", b"null", b"\xff\xfe{}", b"[" * 100_000, b'{"a": 1' + b"0" * 5000],
    ids=lambda raw: str(raw[:8]),
)
def test_what_is_not_a_json_object_is_refused(tmp_path, raw):
    path = tmp_path / "a.json"
    path.write_bytes(raw)
    with pytest.raises(UserError, match=r"a\.json: .*; do this"):
        read_json(path, "do this")


def test_a_json_file_that_is_not_there_or_may_not_be_read(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no such file; do this"):
        read_json(tmp_path / "a.json", "do this")
    with pytest.raises(UserError, match="do this"):
        read_json(tmp_path, "do this")

    def forbidden(path, *encoding):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", forbidden)
    with pytest.raises(UserError, match="Permission denied; check its permissions"):
        read_json(tmp_path / "a.json", "destroy it")


def test_two_processes_at_once_make_a_file_once(tmp_path):
    path = tmp_path / "a"
    # While this process holds the lock, both have to wait, so that they begin together.
    with making(path):
        processes = [start_python("-c", MAKE, path) for _ in range(2)]
        for process in processes:
            assert process.stdout.readline() == f"waiting: another process is making {path}\n"
        assert not path.exists()
    outs = [process.communicate(timeout=60) for process in processes]
    assert sorted(outs) == [("", ""), ("made\n", "")]
    assert list(tmp_path.iterdir()) == [path]


def test_the_lock_is_free_after_a_failure(tmp_path):
    for _ in range(2):
        with pytest.raises(UserError), making(tmp_path / "a"):
            raise UserError("wrong")
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "works"),
    [
        (OSError(errno.ENOLCK, "no locks"), True),
        (NotImplementedError(), True),
        (PermissionError(errno.EACCES, "Permission denied", "a.lock"), False),
    ],
)
def test_a_file_system_without_locks_still_works(tmp_path, monkeypatch, error, works):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", fail)
    if works:
        with making(tmp_path / "a"):
            write_text(tmp_path / "a", "made")
        assert (tmp_path / "a").read_text() == "made"
    else:
        with pytest.raises(PermissionError), making(tmp_path / "a"):
            pass
