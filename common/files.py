"""Atomic file writes, JSON objects, and a lock beside a file that is to be made."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import filelock
import numpy as np

from common.command_line import UserError

# The system's errors for a lock on a file system without locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write that becomes `path` when the block ends without an error.

    Raises OSError, with the name of `path`, if it cannot be written; the old one then stays.
    """
    target = path.resolve()  # a link stays one
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
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
    """Write a JSON object whole or not at all. Raises OSError, ValueError for NaN or infinity."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + "\n")


def without_nan(value: object, digits: int | None = None) -> object:
    """The value as JSON has it: NaN is null, and an array a list.

    digits: significant digits of floats except deltas, by which runs are matched.
    """
    if isinstance(value, dict):
        return {k: without_nan(item, None if k == "delta" else digits) for k, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [without_nan(item, digits) for item in value]
    if isinstance(value, float):
        if not np.isfinite(value):
            return None
        return float(f"{value:.{digits}g}") if digits else float(value)
    return value


def read_json(path: Path, remedy: str) -> dict:
    """Read a JSON object. Raises UserError with the remedy if there is none, or OSError."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not a JSON object; {remedy}")
    return content


@contextmanager
def held(path: Path, when_busy: Callable[[], None]) -> Iterator[bool]:
    """Hold the lock file `path`, in a folder that exists; the system frees it if the process ends.

    when_busy: called if another process holds it; then this one waits. Yields False on a file
    system without locks. Raises OSError if the file cannot be written.
    """
    lock = filelock.FileLock(path)
    try:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            when_busy()
            lock.acquire(poll_interval=0.2)
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
    try:
        yield lock.is_locked
    finally:
        lock.release()


@contextmanager
def making(path: Path) -> Iterator[None]:
    """Hold the lock beside a file that is to be made; inside, look whether another has made it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f"{path.name}.lock")
    with held(lock, lambda: print(f"waiting: another process is making {path}", flush=True)):
        try:
            yield
        finally:
            # A process that waits gets the removed file, and a new one makes another: both find the
            # data set, or both try again what has failed.
            lock.unlink(missing_ok=True)
