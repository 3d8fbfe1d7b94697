"""One process makes a file, and the others wait for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from common.run_folder import NO_LOCKS


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
