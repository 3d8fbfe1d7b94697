"""A run on disk: the folder runs/<data set>/<run>/ that the scripts hand to each other.

    config.json          every flag, the data set's digest and meta, versions, the device's name
    history.jsonl        one JSON object per epoch, appended and flushed
    logits.npy           outputs on the test images after each epoch: common/logits.py
    train_logits.npy     outputs on a fixed sample of training images after each epoch
    val_logits.npy       outputs on the held-out images after each epoch, if there are any
    train_indices.npy    which training images these are
    checkpoint.pt        what --resume needs: training/checkpoint.py
    lock                 held by the process that trains the run
    frequency.json       measures in the frequency domain: analysis/frequency_file.py
    memorization.json    what is memorized of the noisy labels: analysis/memorization_file.py
    spectrum.json        measures along a kernel's eigenvectors: analysis/spectrum_file.py

A run exists if it has a config.json.
"""

import errno
import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import filelock
import numpy as np

from common.errors import UserError
from common.files import read_json, write_json, write_text
from common.logits import logits_length, truncate_logits

TEST_LOGITS, SAMPLE_LOGITS, VAL_LOGITS = "logits.npy", "train_logits.npy", "val_logits.npy"
SAMPLE_INDICES = "train_indices.npy"
LOGITS = (TEST_LOGITS, SAMPLE_LOGITS)  # of every run; VAL_LOGITS only where images are held out
FREQUENCY, MEMORIZATION, SPECTRUM = "frequency.json", "memorization.json", "spectrum.json"
FILES = ("config.json", "history.jsonl", *LOGITS, VAL_LOGITS, SAMPLE_INDICES)
FILES += (FREQUENCY, MEMORIZATION, SPECTRUM)
FILES += ("checkpoint.pt", "checkpoint.prev.pt")
# The system's errors for a lock on a file system without locks.
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run's lock, in a folder that exists. Raises UserError if another process does.

    The system releases the lock of a process that has ended. On a file system without locks, the
    run trains without one, and a line says so.
    """
    lock = filelock.FileLock(run / "lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        owner = (run / "lock").read_text("utf-8", "replace").strip() or "another process"
        raise UserError(
            f"{run}: {owner} is training it; wait for it, or name another run with --run"
        ) from None
    except (OSError, NotImplementedError) as error:
        if isinstance(error, OSError) and error.errno not in NO_LOCKS:
            raise
        print(f"{run}: this file system has no locks; train it from one process only", flush=True)
        yield
        return
    try:
        (run / "lock").write_text(f"process {os.getpid()} on {platform.node()}\n", "utf-8")
        for name in FILES:  # left by a process that was killed while it wrote
            for temporary in run.glob(f"{name}.*tmp"):
                temporary.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """The run folders at or below `paths`, sorted. Raises UserError if a path has none."""
    runs: set[Path] = set()
    for path in map(Path, paths):
        below = [config.parent for config in path.glob("**/config.json")]
        if not below:
            raise UserError(f"{path}: no run there; make one with train.py, or name it with --runs")
        runs.update(below)
    return sorted(runs)


def remove_run(run: Path) -> None:
    """Delete a run's files, first config.json, without which the run does not exist."""
    for name in FILES:
        (run / name).unlink(missing_ok=True)


def write_config(run: Path, config: dict) -> None:
    """Write config.json."""
    write_json(run / "config.json", config)


def read_config(run: Path) -> dict:
    """Read config.json. Raises UserError if it is missing or damaged."""
    if not run.is_dir():
        raise UserError(f"{run}: no such run; make it with train.py, or check the path")
    return read_json(run / "config.json", "train the run again with --overwrite")


def write_sample_indices(run: Path, indices: np.ndarray) -> None:
    """Write int64 (n,): which training images the sample holds."""
    np.save(run / SAMPLE_INDICES, indices)


def read_sample_indices(run: Path) -> np.ndarray:
    """Read int64 (n,). Raises UserError if there is no such file yet."""
    try:
        return np.load(run / SAMPLE_INDICES, allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{error.filename}: no such file yet; train the run further") from None
    except (ValueError, EOFError) as error:
        raise UserError(
            f"{run / SAMPLE_INDICES}: damaged ({error}); train the run again"
        ) from error


def append_history(run: Path, record: dict) -> None:
    """Append one epoch's record to history.jsonl and flush it."""
    with open(run / "history.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(record, allow_nan=False) + "\n")


def read_history(run: Path) -> tuple[list[dict], str]:
    """The epochs' records and a note, empty unless a half-written last line was dropped.

    Raises UserError if there is no whole record, or another line than the last is damaged.
    """
    path = run / "history.jsonl"
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        lines = []
    # A whole line ends with a newline, so what follows the last newline was cut short.
    note = f"{path}: half-written last line dropped" if lines and lines.pop() else ""
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise UserError(f"{path}: line {number} is damaged; train the run again") from error
    if not records:
        raise UserError(f"{path}: no epoch in it yet; go on with train.py --resume")
    return records, note


def truncate_run(run: Path, epochs: int) -> None:
    """Cut history and logits back to their first `epochs` epochs, those of the checkpoint.

    Raises UserError if a file has fewer.
    """
    history = run / "history.jsonl"
    logits = [run / name for name in (*LOGITS, VAL_LOGITS) if (run / name).exists()]
    if epochs == 0:
        for path in (history, *logits):
            path.unlink(missing_ok=True)
        return
    records, _ = read_history(run)
    shortest = min(len(records), *map(logits_length, logits))
    if shortest < epochs:
        raise UserError(
            f"{run}: the checkpoint is of epoch {epochs}, but history or logits end at epoch "
            f"{shortest}; train it again with --overwrite"
        )
    lines = (json.dumps(record, allow_nan=False) + "\n" for record in records[:epochs])
    write_text(history, "".join(lines))
    for path in logits:
        truncate_logits(path, epochs)
