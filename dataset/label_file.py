"""A label file of any layout as named columns, and what each of them holds."""

import csv
import io
import json
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import numpy as np

from common.command_line import UserError
from dataset.sources import SUFFIXES, Source, numeric_names

EMPTY = ("", "none", "nan", "null", "na")
ONLY = "its list"  # the name of a column that has none
BYTES_PER_IMAGE, BYTES_BESIDES = 1000, 2**20  # a larger file only fills the memory


@dataclass
class Column:
    """One column of a label file, by row."""

    name: str
    cells: list
    integers: list[int | None]  # the integer that a cell is, or None
    classes: list[int | None]  # the class that a cell is, or None
    role: str  # files, index, labels or other
    first_line: int | None  # of a text file

    def error(self, row: int, words: str) -> UserError:
        """What is wrong with the cell of a row."""
        place = f"line {row + self.first_line}" if self.first_line else f"entry {row}"
        value = self.cells[row]
        found = "is empty" if value in (None, "") else f"has '{short(value)}'"
        return UserError(f"{short(self.name)}, {place}, {found}, {words}")


def read_columns(path: Path, source: Source) -> list[Column]:
    """The columns of a label file for the images of `source`; nothing in it is executed.

    Raises UserError if it cannot be read, or is too large.
    """
    first_line, images = None, len(source.train_labels)
    try:
        if (size := path.stat().st_size) > BYTES_BESIDES + BYTES_PER_IMAGE * images:
            raise ValueError(f"{size} bytes are too many for {images} labels")
        if path.suffix.lower() in (".npy", ".pt", ".pth"):
            columns = _as_columns(_load(path))
        else:
            columns, first_line = _read_text(path.read_text("utf-8-sig"), source)
    # A file from elsewhere can make a reader fail in any way, even by memory or recursion.
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["damaged"])[0][:120]
        if isinstance(error, UnpicklingError) or "pickle" in reason:
            reason = "it is damaged, or holds pickled objects, which are never executed"
        elif isinstance(error, UnicodeDecodeError):
            reason = "it is not text in UTF-8; use .json, .csv, .npy or .pt"
        raise UserError(f"cannot be read ({reason}); see docs/usage.md") from None
    found = []
    for name, cells in columns.items():
        numbers = [_number(cell) for cell in cells]
        integers = [value if isinstance(value, int) else None for value in numbers]
        classes = _classes(cells, integers, source.class_names)
        role = _role(cells, numbers, classes, len(source.class_names))
        role = "labels" if len(columns) == 1 else role
        found.append(Column(name, cells, integers, classes, role, first_line))
    return found


def short(text) -> str:
    """A name or a cell for the user."""
    return str(text)[:40] or "''"


# --- what a column holds ---


def _role(cells: list, numbers: list, classes: list, num_classes: int) -> str:
    """What a column holds by most of its cells: files, index, labels or other.

    Names and indices with gaps or doubles count as such, and are refused later.
    """
    if any(isinstance(cell, (list, dict)) for cell in cells):
        return "other"
    count, different = len(cells), len(set(cells))
    integers = sum(isinstance(value, int) for value in numbers)
    if (different == count or different > 2 * num_classes) and 2 * integers > count > num_classes:
        return "index"
    empty = sum(str(cell).strip().lower() in EMPTY for cell in cells)
    if 2 * (count - classes.count(None)) > count - empty:
        return "labels"
    texts = [c for c, k in zip(cells, numbers, strict=True) if isinstance(c, str) and k is None]
    images = sum(text.lower().endswith(SUFFIXES) for text in texts)
    names = 2 * len(texts) > count and different > min(count / 2, 2 * num_classes)
    return "files" if names or 2 * images > count else "other"


def _number(cell) -> int | float | None:
    """The number that a cell is, an int also for 7.0 or "7.0e+00"; None for anything else."""
    try:
        text = str(cell).replace("_", "x")  # Python reads 1_0 as 10
        value = int(text) if text.strip().isdecimal() else float(text)
    except ValueError:
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _classes(cells: list, integers: list, class_names: list[str]) -> list[int | None]:
    """The class of each cell, by name or by its number from 0.

    If the names are numbers themselves, cells are read in the one way that fits more of them.
    """
    by_number = [k if k is not None and 0 <= k < len(class_names) else None for k in integers]
    if numbers := numeric_names(class_names):
        named = {number: k for k, number in enumerate(numbers)}
        by_name = [named.get(value) for value in integers]
        return by_name if by_name.count(None) < by_number.count(None) else by_number
    named = {name: k for k, name in enumerate(class_names)}
    texts = [unicodedata.normalize("NFC", str(cell).strip()) for cell in cells]
    return [named.get(text, k) for text, k in zip(texts, by_number, strict=True)]


# --- layouts ---


def _load(path: Path):
    """The content of a .npy or .pt; of types other than torch's only numpy's are allowed."""
    if path.suffix.lower() == ".npy":
        return np.load(path, allow_pickle=False)
    import torch

    allowed = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in "?bhilqBHILQfd")]
    # numpy 2 moved the functions that rebuild arrays; files name either place.
    core = np._core if hasattr(np, "_core") else np.core
    for function in (core.multiarray._reconstruct, core.multiarray.scalar):
        for place in ("core", "_core"):
            allowed.append((function, f"numpy.{place}.multiarray.{function.__name__}"))
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True)


def _as_columns(content) -> dict[str, list]:
    """The columns of what a file holds: a list, named lists, records, or labels by name."""
    content = _plain(content)
    if isinstance(content, dict):
        if any(isinstance(value, list) for value in content.values()):
            return {str(n): _flat(v) for n, v in content.items() if isinstance(v, list)}
        content = [{"file": str(name), "label": value} for name, value in content.items()]
    if not isinstance(content, list) or not content:
        raise ValueError("it holds no labels")
    if all(isinstance(record, dict) for record in content):
        names = dict.fromkeys(key for record in content for key in record)
        return {str(name): [record.get(name) for record in content] for name in names}
    return {ONLY: _flat(content)}


def _flat(cells: list) -> list:
    """Cells (N,) of a list (N, 1); any other list as it is."""
    single = all(isinstance(cell, list) and len(cell) == 1 for cell in cells)
    return [cell[0] for cell in cells] if single else cells


def _plain(value):
    """Arrays and tensors, also inside lists and dicts, as lists."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _read_text(text: str, source: Source) -> tuple[dict[str, list], int | None]:
    """The columns of a text, JSON or lines of cells, and the number of the first row's line."""
    if text.lstrip()[:1] in ("[", "{"):
        return _as_columns(json.loads(text, object_pairs_hook=_no_doubles)), None
    rows = _split_lines(text.rstrip())
    names = [ONLY] if len(rows[0]) == 1 else [str(k) for k in range(len(rows[0]))]
    header = _is_header(rows, source)
    if header:
        names, rows = rows[0], rows[1:]
    if not rows:
        raise ValueError("it holds no labels")
    columns = [list(cells) for cells in zip(*rows, strict=True)]
    return _no_doubles(list(zip(names, columns, strict=True))), 1 + header


def _no_doubles(pairs: list) -> dict:
    for name, count in Counter(name for name, _ in pairs).items():
        if count > 1:
            raise ValueError(f"'{short(name)}' is given twice")
    return dict(pairs)


def _split_lines(text: str) -> list[list[str]]:
    """The cells of each line.

    Delimiters are commas, semicolons, tabs or blanks: the first that splits all lines into equally
    many cells. csv.Sniffer takes the blanks in class names for delimiters.
    """
    if not text:
        raise ValueError("it is empty")
    single = "\n".join(" ".join(line.split()) for line in text.splitlines())  # no double blanks
    for delimiter in (",", ";", "\t", " ", ","):
        file = io.StringIO(single if delimiter == " " else text, newline="")
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=delimiter != " ")
        rows = [[cell.strip() for cell in row] for row in reader]
        wrong = next((k for k, row in enumerate(rows) if len(row) != len(rows[0])), None)
        if wrong is None and len(rows[0]) > 1:
            return rows
    if wrong is not None:
        words = f"has {len(rows[wrong])} cells" if rows[wrong] else "is empty"
        raise ValueError(f"line {wrong + 1} {words}, line 1 has {len(rows[0])}")
    return rows


def _is_header(rows: list[list[str]], source: Source) -> bool:
    """Whether the first line names the columns: it has neither labels nor files.

    pandas calls columns without a name 0, 1, ..., and its index nothing.
    """
    first = rows[0]
    if any(cell.lower().endswith(SUFFIXES) or "/" in cell for cell in first):
        return False
    numbers = [_number(cell) for cell in first]
    if all(value is None for value in numbers):
        return all(k is None for k in _classes(first, numbers, source.class_names))
    named = [cell for cell in first if cell]
    counted = named == [str(k) for k in range(len(named))]
    return counted and ("" in first or len(rows) == len(source.train_labels) + 1)
