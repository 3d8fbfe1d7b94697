"""Atomic file writes, JSON objects, and a lock beside a file that is to be made."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import filelock

from common.command_line import UserError, explained

# The system's errors for a lock on a file system without locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write that becomes `path` when the block ends without an error.

    The content goes to a temporary file beside `path`, named after this process, so that two
    processes that write one file do not mix; a reader sees the old file or the new one.
    Raises OSError, with the name of `path`, if the file cannot be written; the old one then stays.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` in UTF-8, whole or not at all. Raises OSError."""
    with atomic_write(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: dict, indent: int | None = 1) -> None:
    """Write a JSON object whole or not at all; without `indent` on one line.

    Raises ValueError if a number is not finite, OSError if the file cannot be written.
    """
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def read_json(path: Path, remedy: str) -> dict:
    """Read a JSON object. Raises UserError with the remedy if there is none."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except PermissionError as error:
        raise explained(error) from None
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object; {remedy}")
    return content


@contextmanager
def making(path: Path) -> Iterator[None]:
    """Hold the lock beside a file that is to be made; print a line if another process holds it.

    Inside, check again whether the file exists: the other process may have made it. On a file
    system without locks, no lock is held. Raises OSError if the lock file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path.with_name(f"{path.name}.lock"))
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            print(f"waiting: another process is making {path}", flush=True)
            lock.acquire(poll_interval=0.2)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        yield
        return
    try:
        yield
    finally:
        # A waiting process then gets the removed lock file, and a new process makes another one.
        # Both find the data set, or both try again what has failed.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
