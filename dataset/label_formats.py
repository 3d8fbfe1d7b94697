"""The formats of label files: each reader returns one list of labels, or a dict of named lists."""

import csv
import json
import re
from pathlib import Path
from pickle import UnpicklingError

import numpy as np

from common.errors import UserError

# No label file of another project comes near this size; a larger file would only fill the memory.
BYTES_PER_IMAGE, BYTES_BESIDES = 1000, 2**20
# CIFAR as one file per image: its index in the official order, and its class.
FILE_NAME = re.compile(r"(?:.*[/\\])?(\d{1,9})_([^/\\]+)\.\w+", re.DOTALL)


def read_content(path: Path, num_images: int):
    """What a label file holds: a list or array of labels, or a dict of them by name.

    The suffix determines the format; a file with another suffix is read as text, JSON or CSV.
    Nothing in a file is executed. Raises UserError if it cannot be read, or is too large for
    `num_images` labels.
    """
    readers = {".json": _read_json, ".csv": _read_csv, ".npy": _read_npy}
    readers |= {".pt": _read_pt, ".pth": _read_pt}
    try:
        size = path.stat().st_size
        if size > BYTES_BESIDES + BYTES_PER_IMAGE * num_images:
            raise ValueError(f"{size} bytes are too many for {num_images} labels")
        if not size:
            raise ValueError("it is empty")
        return readers.get(path.suffix.lower(), _read_text)(path)
    # A file from elsewhere can make a reader fail in any way, even by memory or recursion.
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["damaged"])[0][:120]
        if isinstance(error, UnpicklingError) or "pickle" in reason:
            reason = "it is damaged, or holds pickled objects, which are never executed"
        elif isinstance(error, UnicodeDecodeError):
            reason = "it is not text; use .json, .csv, .npy or .pt"
        raise UserError(f"--noise {path}: cannot be read ({reason}); see docs/labels.md") from None


def _read_json(path: Path):
    content = json.loads(path.read_text("utf-8"))
    if isinstance(content, dict) and any(isinstance(value, int) for value in content.values()):
        return _by_file_name(content)
    return content


def _by_file_name(content: dict[str, int]) -> dict:
    """{"train/airplane/10008_airplane.png": 3, ...} -> labels in the order of the names' index.

    The files of Northcutt et al., "Confident Learning" (arXiv 1911.00068). The names contain the
    clean labels as well: classes are numbered in alphabetical order, as CIFAR's are. Raises
    ValueError if the keys are not such names, or do not count 0, 1, 2, ...
    """
    names = [FILE_NAME.fullmatch(key) for key in content]
    if not all(names):
        raise ValueError(
            "its keys are neither names of lists nor file names like 10008_airplane.png"
        )
    index = np.array([int(name[1]) for name in names])
    order = np.argsort(index)
    if not np.array_equal(index[order], np.arange(len(index))):
        raise ValueError(f"its {len(index)} file names do not count 0, 1, 2, ...")
    _, clean = np.unique([name[2] for name in names], return_inverse=True)
    values = list(content.values())
    return {"clean_label": clean[order], "labels": [values[k] for k in order]}


def _read_csv(path: Path):
    """Columns of integers by name; without a header a list, or the columns label, 1, 2, ...

    A column that counts 0, 1, 2, ... beside others is the images' index and is left out. Columns
    of anything but integers are left out too. Raises ValueError if no column is left.
    """
    rows = [row for row in csv.reader(path.read_text("utf-8-sig").splitlines()) if row]
    has_header = rows and all(_as_integers([cell]) is None for cell in rows[0])
    header = rows.pop(0) if has_header else None
    for row in rows:
        if len(row) != len(header or rows[0]):
            raise ValueError(f"a line has {len(row)} cells, another {len(header or rows[0])}")
    columns = [_as_integers(cells) for cells in zip(*rows, strict=True)]
    if len(columns) > 1:
        columns = [c if c != list(range(len(rows))) else None for c in columns]
    if header is None:
        columns = [column for column in columns if column is not None]
        if len(columns) == 1:
            return columns[0]
        header = ["label", *map(str, range(1, len(columns)))]
    named = zip(header, columns, strict=False)
    named = {name.strip(): column for name, column in named if column is not None}
    if not named:
        raise ValueError("it has no column of integers")
    return named


def _as_integers(cells) -> list[int] | None:
    try:
        return [int(cell) for cell in cells]
    except ValueError:
        return None


def _read_text(path: Path):
    start = path.read_text("utf-8").lstrip()[:1]
    return (_read_json if start in ("[", "{") else _read_csv)(path)


def _read_npy(path: Path):
    return np.load(path, allow_pickle=False)


def _read_pt(path: Path):
    """A dict of arrays or tensors, or one of them; of other types only numpy's are allowed."""
    import torch

    allowed = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in "bhilqBHILQfd")]
    # numpy 2 moved the function that rebuilds an array; files name either place.
    core = np._core if hasattr(np, "_core") else np.core
    rebuild = core.multiarray._reconstruct
    allowed += [(rebuild, f"numpy.{place}.multiarray._reconstruct") for place in ("core", "_core")]
    scalar = core.multiarray.scalar
    allowed += [(scalar, f"numpy.{place}.multiarray.scalar") for place in ("core", "_core")]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True)
