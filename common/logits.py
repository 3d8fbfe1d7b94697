"""logits.npy: float32 (epochs, images, classes), appended to after each epoch.

The header counts an epoch only once its numbers are in the file, so that a run that is stopped
while it writes leaves a file that can be read.
"""

import math
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from common.errors import UserError


def append_logits(path: Path, logits: np.ndarray) -> None:
    """Append one epoch's logits (images, classes); the first one makes the file."""
    if not path.exists():
        with open(path, "wb") as file:
            _write_header(file, (0, *logits.shape))
    with open(path, "r+b") as file:
        shape = _read_header(path, file)
        file.seek(0, os.SEEK_END)
        file.write(np.ascontiguousarray(logits, np.float32).data)
        file.flush()
        file.seek(0)
        _write_header(file, (shape[0] + 1, *shape[1:]))


def read_logits(path: Path) -> tuple[np.ndarray, str]:
    """float32 (epochs, images, classes), mapped from disk, and a note, empty if none is missing.

    Only the whole epochs of a file that was cut short are returned. Raises UserError if it is no
    such file.
    """
    try:
        with open(path, "rb") as file:
            epochs, *shape = _read_header(path, file)
            start = file.tell()
        present = (path.stat().st_size - start) // (4 * math.prod(shape))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; go on with train.py --resume") from None
    except ZeroDivisionError:
        raise UserError(f"{path}: no images or no classes; train the run again") from None
    whole = min(epochs, present)
    note = "" if whole == epochs else f"{path}: cut short, {whole} of {epochs} epochs used"
    if not whole:
        return np.empty((0, *shape), np.float32), note
    return np.memmap(path, np.float32, "r", start, (whole, *shape)), note


def logits_length(path: Path) -> int:
    """The number of whole epochs in the file. Raises UserError if it is no such file."""
    return len(read_logits(path)[0])


def truncate_logits(path: Path, epochs: int) -> None:
    """Cut the file back to its first `epochs` epochs."""
    with open(path, "r+b") as file:
        shape = (epochs, *_read_header(path, file)[1:])
        file.seek(0)
        _write_header(file, shape)
        file.truncate(file.tell() + 4 * math.prod(shape))


# numpy leaves room in the header for a first axis of any length, so it can be written over.


def _write_header(file, shape: Iterable[int]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": tuple(shape)}
    np.lib.format.write_array_header_1_0(file, header)


def _read_header(path: Path, file) -> tuple[int, ...]:
    try:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: damaged header ({error}); train the run again") from error
    if len(shape) != 3 or dtype != np.float32:
        raise UserError(f"{path}: {dtype} {shape}, not logits; train the run again")
    return shape
