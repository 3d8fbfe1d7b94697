"""Noisy labels that other projects made: a file becomes named columns, and each gets its part.

A column holds file names, indices, labels, or something else. `_read` turns any file into columns,
`_choose` decides which one is the noise, `_place` finds the image of each row. What is not certain
is refused, and what is not used is named.
"""

import csv
import io
import json
import re
import unicodedata
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import numpy as np

from common.command_line import UserError, printable
from dataset.noise import chance_probability
from dataset.sources import SUFFIXES, Source, numeric_names

# The names that label files give to the clean labels: CIFAR-10N, CIFAR-100N, HOC and others.
CLEAN_NAMES = ("clean_label", "clean_labels", "clean_label_train", "true_label", "true_labels")
BASES = {"index_from_0": 0, "index_from_1": 1}  # indices of some of the images do not show it
INDEX_NAMES = ("", "index", "idx", "id", "image_id", "img_id", "unnamed: 0", *BASES)
EMPTY = ("", "none", "nan", "null", "na")
ONLY = "its list"  # the name of a column that has none
MISSING = -1  # the label of an image that a file leaves out, the image of a row without one
CHANCE = 0.001  # permuted labels that agree as well at least this often are called chance
SHOWN_NAMES = 6  # in an error
# No label file of another project comes near this size; a larger file would only fill the memory.
BYTES_PER_IMAGE, BYTES_BESIDES = 1000, 2**20


@dataclass
class Column:
    """One column of a label file, by row; the class and the integer that a cell is, or None."""

    name: str
    cells: list
    classes: list[int | None]
    integers: list[int | None]
    role: str  # files, index, labels or other


@dataclass
class Table:
    """A label file and the data set that it should belong to."""

    path: Path
    source: Source
    lines: list[int] | None = None  # where the rows stand in a text file
    columns: dict[str, Column] = None

    def error(self, words: str) -> UserError:
        return UserError(f"--noise {printable(self.path)}: {words}")

    def cell(self, column: Column, row: int) -> str:
        place = f"line {self.lines[row]}" if self.lines else f"entry {row}"
        value = column.cells[row]
        words = "is empty" if value in (None, "") else f"has '{_shown(value)}'"
        return f"{_shown(column.name)}, {place}, {words}"

    def wrong_length(self, column: Column) -> UserError:
        return self.error(
            f"{_shown(column.name)} has {len(column.cells)} labels, the data set "
            f"{len(self.source.train_labels)} training images; labels are read for all of them, "
            "before --train-size and --val-size"
        )


def read_labels(
    path: Path,
    name: str | None,
    source: Source,
    any_labels: bool = False,
    chosen: np.ndarray | None = None,
) -> tuple[np.ndarray, str]:
    """Labels int64 (N,) of the source's training images, and what was read, for the user.

    name: of the column to use, if there are several; any_labels: also labels that look like no
    noise at all; chosen: indices of the images that need a label, by default all: the others may
    have MISSING. Nothing in the file is executed. Raises UserError that says what does not fit.
    """
    table = _read(path, source)
    rows, how, by = _place(table)
    labels = {
        c.name: _at_images(c, rows, source)
        for c in table.columns.values()
        if c.role == "labels" and len(c.cells) == len(rows)
    }
    column = _choose(table, labels, name)
    _check_cells(table, column, rows)
    noisy = _at_images(column, rows, source)
    _check_complete(table, noisy, chosen)
    if not any_labels:
        _check_plausible(table, noisy, column.name == name)
    used = (column.name, by, *CLEAN_NAMES)
    unused = [c for c in table.columns if c not in used and any(table.columns[c].cells)]
    words = f"labels: {_shown(column.name)} of {printable(path.name)}, {how}"
    return noisy, words + (f"; not used: {_list(unused)}" if unused else "")


def _at_images(column: Column, rows: np.ndarray, source: Source) -> np.ndarray:
    """Labels int64 (N,) by image of a column by row; MISSING where there is none."""
    values = np.array([MISSING if k is None else k for k in column.classes], np.int64)
    labels = np.full(len(source.train_labels), MISSING)
    labels[rows[rows != MISSING]] = values[rows != MISSING]
    return labels


# --- which column is what ---


def _column(name: str, cells: list, source: Source, only: bool) -> Column:
    integers = [_integer(cell) for cell in cells]
    classes = _classes(cells, integers, source)
    role = "labels" if only else _role(name, cells, integers, classes, len(source.class_names))
    return Column(name, cells, classes, integers, role)


def _role(name: str, cells: list, integers: list, classes: list, num_classes: int) -> str:
    """What a column holds: files, index, labels or other."""
    if any(isinstance(cell, (list, dict)) for cell in cells):
        return "other"
    most, different = len(cells) / 2, len(set(cells))
    many = different > min(most, 2 * num_classes)
    if len(cells) - integers.count(None) > most and many:
        named = name.lower() in INDEX_NAMES
        if different == len(cells) and (len(cells) > num_classes or named):
            return "index"
        out_of_range = sum(k is not None and not 0 <= k < num_classes for k in integers)
        if len(cells) > num_classes and out_of_range >= most:
            return "index"  # with gaps or doubles, which _place refuses
    empty = sum(str(cell).strip().lower() in EMPTY for cell in cells)
    if 2 * (len(cells) - classes.count(None)) > len(cells) - empty:
        return "labels"
    texts = [cell for cell in cells if isinstance(cell, str) and not _is_number(cell)]
    images = sum(cell.lower().endswith(SUFFIXES) for cell in texts)
    return "files" if images > most or (len(texts) > most and many) else "other"


def _is_number(text: str) -> bool:
    try:
        float(text)
        return True
    except ValueError:
        return False


def _integer(cell) -> int | None:
    """The integer that a cell is, also as 7.0 or "7.0"; None for anything else."""
    if isinstance(cell, str):
        if not re.fullmatch(r"\s*[-+]?[0-9]{1,18}(\.[0-9]*)?(e[-+]?[0-9]{1,2})?\s*", cell, re.I):
            return None
        cell = int(cell) if cell.strip("+- \t").isdecimal() else float(cell)
    if isinstance(cell, bool) or not isinstance(cell, (int, float)):
        return None
    return int(cell) if isinstance(cell, int) or cell.is_integer() else None


def _classes(cells: list, integers: list, source: Source) -> list[int | None]:
    """The class of each cell, by name or by its number from 0.

    If the names are numbers themselves, cells are read in the one way that fits more of them.
    """
    by_number = [
        k if k is not None and 0 <= k < len(source.class_names) else None for k in integers
    ]
    if numbers := numeric_names(source.class_names):
        values = {value: k for k, value in enumerate(numbers)}
        by_name = [values.get(value) for value in integers]
        return by_name if by_name.count(None) < by_number.count(None) else by_number
    names = {name: k for k, name in enumerate(source.class_names)}
    texts = [unicodedata.normalize("NFC", str(cell).strip()) for cell in cells]
    return [names.get(text, k) for text, k in zip(texts, by_number, strict=True)]


def _choose(table: Table, labels: dict[str, np.ndarray], name: str | None) -> Column:
    """The column of the noisy labels: `name`, or the only one that can be."""
    clean = table.source.train_labels
    for column in [c for c in table.columns.values() if c.name in CLEAN_NAMES]:
        if column.role == "labels" and column.name not in labels:
            raise table.wrong_length(column)
        if column.role == "labels":
            _check_clean(table, column.name, labels[column.name])
    others = [column for column in labels if column not in CLEAN_NAMES]
    fitting = [column for column in others if not _odd(labels[column], clean)]
    noisy = [column for column in fitting if _differ(labels[column], clean)]
    if name is not None:
        known = table.columns.get(name)
        if known is None or name in CLEAN_NAMES or known.role in ("files", "index"):
            raise _offer(table, f"no noisy labels '{_shown(name)}' in it", noisy)
        noisy = [name]
    else:
        _refuse_unread(table, noisy)
    if "label" in fitting and noisy != ["label"] and not set(CLEAN_NAMES) & set(labels):
        way = "rename it" if name else "--labels label uses it"
        _check_clean(table, "label", labels["label"], f"; if it is noise, {way}")
    if len(noisy) > 1:
        raise _offer(table, f"it holds {len(noisy)} lists of labels", noisy)
    if found := noisy or fitting or others:  # _check_plausible refuses all but the noisy
        return table.columns[found[0]]
    for column in table.columns.values():
        if column.role == "labels" and column.name not in labels:
            raise table.wrong_length(column)
    raise table.error("it holds no noisy labels; see docs/usage.md")


def _refuse_unread(table: Table, noisy: list[str]) -> None:
    """Refuse to leave out a column that was meant to be labels, but whose cells are none."""
    for column in table.columns.values():
        meant = not noisy or re.search("label|nois|annotat", column.name, re.IGNORECASE)
        flags = {str(cell).lower() for cell in column.cells} <= {"true", "false"}
        if meant and not (noisy and flags) and column.role == "other" and None in column.classes:
            raise table.error(
                f"{table.cell(column, column.classes.index(None))}, which is no label; use class "
                "numbers or names, or name another column with --labels"
            )


def _offer(table: Table, words: str, names: list[str]) -> UserError:
    way = f"use --labels with one of {_list(names)}" if names else "see docs/usage.md"
    way = "leave --labels out" if names == [ONLY] else way
    return table.error(f"{words}; {way}")


def _check_clean(table: Table, name: str, listed: np.ndarray, way: str = "") -> None:
    """Refuse clean labels (N,) beside the noisy ones that are not the data set's."""
    clean = table.source.train_labels
    if differ := _differ(listed, clean):
        raise table.error(
            f"its clean labels, {_shown(name)}, differ from the data set's in {differ} of "
            f"{len(clean)} places: it belongs to other images or to another order{way}"
        )


def _differ(labels: np.ndarray, clean: np.ndarray) -> int:
    """In how many places labels (N,), where they are not MISSING, differ from the clean ones."""
    return int(((labels != clean) & (labels != MISSING)).sum())


def _odd(labels: np.ndarray, clean: np.ndarray) -> str:
    """Why labels (N,) can be no noisy labels, by the number of their classes; or nothing."""
    present = labels != MISSING
    found, expected = (len(np.unique(values[present])) for values in (labels, clean))
    if 2 * found >= expected:
        return ""
    kind = "a mask" if found <= 2 else f"the numbers of {found} superclasses"
    return f"only {found} of {expected} classes occur in it, as if it were {kind}"


# --- whether the labels can be right ---


def _check_cells(table: Table, column: Column, rows: np.ndarray) -> None:
    """Refuse a column unless all its cells are labels, in one way only."""
    if len(column.cells) != len(rows):
        raise table.wrong_length(column)
    classes, numbers = len(table.source.class_names), numeric_names(table.source.class_names)
    if None in column.classes:
        integers = [value for value in column.integers if value is not None]
        span = f" (from {min(integers)} to {max(integers)})"[:60] if len(integers) > 1 else ""
        raise table.error(
            f"{table.cell(column, column.classes.index(None))}, which is no label{span}; a label "
            f"is an integer of 0..{classes - 1} or a class name"
        )
    both = numbers and all(k in numbers and 0 <= k < classes for k in column.integers)
    if both and any(numbers[k] != k for k in column.integers):
        raise table.error(
            f"{_shown(column.name)} may hold class names or class numbers from 0, since the "
            "classes are named by numbers; rename the class folders, as in class1"
        )


def _check_complete(table: Table, noisy: np.ndarray, chosen: np.ndarray | None) -> None:
    chosen = np.arange(len(noisy)) if chosen is None else np.sort(chosen)
    absent = chosen[noisy[chosen] == MISSING]
    if len(absent):
        files = table.source.train_files
        first = _shown(files[absent[0]]) if files else f"image {absent[0]}"
        raise table.error(f"it has no label for {len(absent)} training images, first {first}")


def _check_plausible(table: Table, noisy: np.ndarray, by_name: bool) -> None:
    """Refuse labels that agree no better than chance, are of another kind, or are clean."""
    present, num_classes = noisy != MISSING, len(table.source.class_names)
    clean, noisy = table.source.train_labels[present], noisy[present]
    accept = "to use it anyway, add --accept-chance-labels"
    if odd := _odd(noisy, clean):
        raise table.error(f"{odd}, not {num_classes} classes; {accept}")
    agree, count = int((noisy == clean).sum()), len(clean)
    if agree == count and not by_name:
        raise table.error("its labels are the clean ones, none is wrong; use --noise none")
    probability = chance_probability(clean, noisy, num_classes)
    if probability <= CHANCE and agree * num_classes > count:
        return
    words = "no better than chance: it belongs to other images or another order"
    if CHANCE < probability < 0.05 and count < 200:
        words = f"too few to tell it from permuted labels (p = {probability:.2g})"
    raise table.error(f"{agree} of {count} labels agree with the clean ones, {words}; {accept}")


# --- which image a row belongs to ---


def _place(table: Table) -> tuple[np.ndarray, str, str | None]:
    """The image of each row (R,), MISSING for a test image; how it was found; by which column."""
    places, error = {}, None
    for column in [c for c in table.columns.values() if c.role == "files"]:
        try:
            places[column.name] = _by_file(table, column)
        except UserError as reason:
            error = error or reason
    if error and not places:
        raise error
    kind = "file name"
    if not places:
        kind = "index"
        for column in [c for c in table.columns.values() if c.role == "index"]:
            places[column.name] = _by_index(table, column)
        # pandas writes the number of the row beside: it is used only if there is nothing else.
        counted = [name for name, (rows, _) in places.items() if (np.diff(rows) == 1).all()]
        places = {n: place for n, place in places.items() if n not in counted[: len(places) - 1]}
    if not places:
        count = len(table.source.train_labels)
        files = table.source.train_files or []
        order = f", so they count as {_list(files, 3)}" if "/" in "".join(files[:1]) else ""
        return np.arange(count), f"placed by position: the file names no images{order}", None
    (name, (rows, how)), *others = places.items()
    for other, (more, _) in others:
        if not np.array_equal(rows, more):
            raise table.error(f"{_shown(name)} and {_shown(other)} name other images; remove one")
    tests = int((rows == MISSING).sum())
    left = f", {tests} rows of test images left out" if tests else ""
    return rows, f"placed by {kind} ({_shown(name)}{how}{left})", name


def _by_index(table: Table, column: Column) -> tuple[np.ndarray, str]:
    """The images of a column of indices; in a folder of numbered files, of these numbers."""
    if None in column.integers:
        row = column.integers.index(None)
        raise table.error(f"{table.cell(column, row)}, which is no index")
    numbers = _file_numbers(table.source.train_files or [])
    if not numbers:
        return _by_number(table, column, column.integers)
    image = {number: k for k, number in enumerate(numbers)}
    rows = [image.get(value) for value in column.integers]
    if None in rows:
        raise table.error(f"{table.cell(column, rows.index(None))}, but no image has that name")
    return _once(table, column, rows), ", as the files' names"


def _file_numbers(files: list[str]) -> list[int] | None:
    """The numbers of numbered files: the names are numbers, or end in all of 0, 1, ... or 1, ..."""
    stems = [Path(file).stem for file in files]
    ends = [match and int(match[0]) for match in (re.search(r"[0-9]{1,9}$", s) for s in stems)]
    if files and None not in ends and sorted(ends) == [*range(min(ends), min(ends) + len(ends))]:
        return ends if min(ends) in (0, 1) else numeric_names(stems)
    return numeric_names(stems)


def _by_number(
    table: Table, column: Column, numbers: list[int], base: int | None = None
) -> tuple[np.ndarray, str]:
    """The images by integers that count all of them from 0 or from 1, or name a part of them."""
    _once(table, column, numbers)
    low, high, count = min(numbers), max(numbers), len(table.source.train_labels)
    base = BASES.get(column.name, base)
    if base is None:
        base = 1 if high == count else 0 if low == 0 else None
    if base is None and low > 0 and high < count:
        raise table.error(
            f"{_shown(column.name)} may count from 0 or from 1; name it {' or '.join(BASES)}"
        )
    if base is None or low < base or high - base >= count:
        raise table.error(
            f"{_shown(column.name)} goes from {low} to {high}, which does not count {count} "
            "training images; if it is no index, remove it"
        )
    return np.array(numbers) - base, "" if base == 0 else ", from 1"


def _once(table: Table, column: Column, rows: list[int]) -> np.ndarray:
    """Rows as an array (R,). Raises UserError if an image is named twice."""
    seen = set()
    for row, image in enumerate(rows):
        if image in seen and image != MISSING:
            raise table.error(
                f"{table.cell(column, row)} for the second time; give each image once"
            )
        seen.add(image)
    return np.array(rows, np.int64)


def _by_file(table: Table, column: Column) -> tuple[np.ndarray, str]:
    """The images of a column of file names: relative paths, or unique ends of them."""
    empty = [row for row, cell in enumerate(column.cells) if not isinstance(cell, str) or not cell]
    if empty:
        raise table.error(f"{table.cell(column, empty[0])}, which is no file name")
    source, names = table.source, [_parts(cell) for cell in column.cells]
    missed = None
    for count in (3, 2, 1, 0):  # split/class/file, class/file, file, file without its suffix
        train, test = (
            [_end(_parts(file), count) for file in files or []]
            for files in (source.train_files, source.test_files)
        )
        image = {name: k for k, name in enumerate(train)}
        if not train or len(image) < len(train):
            continue
        image = {**dict.fromkeys(test, MISSING), **image}
        rows = [image.get(_end(name, count)) for name in names]
        if None not in rows:
            return _once(table, column, rows), ""
        if missed is None or rows.count(None) < missed.count(None):
            missed = rows
    folder = source.train_files and "/" in source.train_files[0]
    if not folder and (numbered := _by_numbered_file(table, column, names)):
        return numbered
    row = missed.index(None) if missed else 0
    raise table.error(
        f"{table.cell(column, row)}, but no training image has that name; remove the column if it "
        "names no images"
    )


def _parts(name: str) -> list[str]:
    return unicodedata.normalize("NFC", name.replace("\\", "/")).split("/")


def _end(parts: list[str], count: int) -> str:
    """The last `count` parts of a path, or its last part without the suffix for 0."""
    return "/".join(parts[-count:]) if count else Path(parts[-1]).stem


def _by_numbered_file(table: Table, column: Column, names: list[list[str]]):
    """Images by numbers in file names: 10008_airplane.png, 10008.png, or by class: cat/0001.png.

    The first as in confident learning (arXiv 1911.00068), the last as OpenOOD numbers CIFAR-10:
    the images of each class in the official order. Returns what _by_file does, or None.
    """
    clean, classes = table.source.train_labels, table.source.class_names
    stems = [re.fullmatch(r"([0-9]{1,9})(?:_(.+))?", Path(name[-1]).stem) for name in names]
    if not all(stems):
        return None
    numbers, ends = [int(stem[1]) for stem in stems], [stem[2] for stem in stems]
    if all(end in classes for end in ends):
        rows, how = _by_number(table, column, numbers, base=0)
        listed = np.full(len(clean), MISSING)
        listed[rows] = [classes.index(end) for end in ends]
        _check_clean(table, column.name, listed)
        return rows, how
    if len(set(numbers)) == len(numbers):
        return None if any(ends) else _by_number(table, column, numbers)
    members = {name: np.flatnonzero(clean == k) for k, name in enumerate(classes)}
    ranks = [
        (name[-2] if len(name) > 1 else "", k - min(numbers))
        for name, k in zip(names, numbers, strict=True)
    ]
    if len(names) < len(clean) or min(numbers) > 1:
        return None  # part of a class does not show whether it counts from 0 or from 1
    if any(k >= len(members.get(folder, ())) for folder, k in ranks):
        return None
    rows = [int(members[folder][k]) for folder, k in ranks]
    return _once(table, column, rows), ", numbered within each class"


# --- files ---


def _read(path: Path, source: Source) -> Table:
    """Any label file as a Table. Raises UserError if it cannot be read, or is too large."""
    table, images = Table(path, source), len(source.train_labels)
    try:
        size = path.stat().st_size
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                size = sum(member.file_size for member in file.infolist())
        if size > BYTES_BESIDES + BYTES_PER_IMAGE * images:
            raise ValueError(f"{size} bytes are too many for {images} labels")
        if not size:
            raise ValueError("it is empty")
        if path.suffix.lower() in (".npy", ".pt", ".pth"):
            columns = _as_columns(_load(path))
        else:
            columns, table.lines = _read_text(path.read_text("utf-8-sig"), source)
    # A file from elsewhere can make a reader fail in any way, even by memory or recursion.
    except Exception as error:
        reason = (str(error).strip().splitlines() or ["damaged"])[0][:120]
        if isinstance(error, UnpicklingError) or "pickle" in reason:
            reason = "it is damaged, or holds pickled objects, which are never executed"
        elif isinstance(error, UnicodeDecodeError):
            reason = "it is not text in UTF-8; use .json, .csv, .npy or .pt"
        raise table.error(f"cannot be read ({printable(reason)}); see docs/usage.md") from None
    table.columns = {n: _column(n, c, source, len(columns) == 1) for n, c in columns.items()}
    return table


def _load(path: Path):
    """The content of a .npy or .pt; of types other than torch's only numpy's are allowed."""
    if path.suffix.lower() == ".npy":
        return np.load(path, allow_pickle=False)
    import torch

    allowed = [np.ndarray, np.dtype, *(type(np.dtype(kind)) for kind in "?bhilqBHILQfd")]
    # numpy 2 moved the functions that rebuild arrays; files name either place.
    core = np._core if hasattr(np, "_core") else np.core
    for function in (core.multiarray._reconstruct, core.multiarray.scalar):
        places = (f"numpy.{place}.multiarray.{function.__name__}" for place in ("core", "_core"))
        allowed += [(function, place) for place in places]
    with torch.serialization.safe_globals(allowed):
        return torch.load(path, map_location="cpu", weights_only=True)


def _as_columns(content) -> dict[str, list]:
    """The columns of what a file holds: a list, named lists, records, or labels by name."""
    content = _plain(content)
    if isinstance(content, dict) and content:
        values = list(content.values())
        if all(isinstance(value, dict) for value in values):
            content = [{"file": str(name), **record} for name, record in content.items()]
        elif not any(isinstance(value, list) for value in values):
            return {"file": list(map(str, content)), "label": values}
        else:
            columns = {str(n): _flat(v) for n, v in content.items() if isinstance(v, list) and v}
            if columns:
                return columns
    if not isinstance(content, list) or not content:
        raise ValueError("it holds no labels")
    if all(isinstance(record, dict) for record in content):
        names = dict.fromkeys(key for record in content for key in record)
        return {str(name): [record.get(name) for record in content] for name in names}
    content = _flat(content)
    if all(isinstance(row, list) and len(row) == len(content[0]) for row in content):
        return {str(k): list(cells) for k, cells in enumerate(zip(*content, strict=True))}
    return {ONLY: content}


def _flat(cells: list) -> list:
    """Cells (N,) of a list (N, 1) or (1, N); any other list as it is."""
    if len(cells) == 1 and isinstance(cells[0], list) and len(cells[0]) > 1:
        return cells[0]
    single = all(isinstance(cell, list) and len(cell) == 1 for cell in cells)
    return [cell[0] for cell in cells] if single else cells


def _plain(value):
    """Arrays and tensors, also inside lists and dicts, as lists."""
    if hasattr(value, "tolist"):
        if getattr(value.dtype, "kind", None) in tuple("OMmV"):
            raise ValueError(f"an array of type {str(value.dtype)[:40]} holds no labels")
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _read_text(text: str, source: Source) -> tuple[dict[str, list], list[int] | None]:
    """The columns of a text, JSON or lines of cells, and the number of the line of each row."""
    if text.lstrip()[:1] in ("[", "{"):
        return _as_columns(json.loads(text, object_pairs_hook=_no_doubles)), None
    rows, lines = _split_lines(text.rstrip())
    if len(rows) == 1:
        rows = [[cell] for cell in rows[0]]
        lines *= len(rows)
    header = None
    if _is_header(rows, source):
        header, rows, lines = [name.strip() for name in rows[0]], rows[1:], lines[1:]
    columns = [[cell.strip() for cell in cells] for cells in zip(*rows, strict=True)]
    if not columns:
        raise ValueError("it holds no labels")
    header = header or ([ONLY] if len(columns) == 1 else list(map(str, range(len(columns)))))
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise ValueError(f"two columns are named '{_shown(twice[0])}'")
    return dict(zip(header, columns, strict=True)), lines


def _no_doubles(pairs: list) -> dict:
    for name, count in Counter(name for name, _ in pairs).most_common(1):
        if count > 1:
            raise ValueError(f"'{_shown(name)}' is given {count} times")
    return dict(pairs)


def _split_lines(text: str) -> tuple[list[list[str]], list[int]]:
    """The cells of each line, and its number.

    Delimiters are commas, semicolons, tabs or blanks: the first that splits all lines into equally
    many cells. csv.Sniffer takes the blanks in class names for delimiters.
    """
    single = "\n".join(" ".join(line.split()) for line in text.splitlines())  # no double blanks
    for delimiter in (",", ";", "\t", " ", ","):
        file = io.StringIO(single if delimiter == " " else text, newline="")
        reader = csv.reader(file, delimiter=delimiter, skipinitialspace=delimiter != " ")
        rows, lines = zip(*((row, reader.line_num) for row in reader), strict=True)
        wrong = next((k for k, row in enumerate(rows) if len(row) != len(rows[0])), None)
        if wrong is None and len(rows[0]) > 1:
            return list(rows), list(lines)
    if wrong is not None:
        words = f"has {len(rows[wrong])} cells" if rows[wrong] else "is empty"
        raise ValueError(f"line {lines[wrong]} {words}, line 1 has {len(rows[0])}")
    return list(rows), list(lines)


def _is_header(rows: list[list[str]], source: Source) -> bool:
    """Whether the first line names the columns: it has neither labels nor files.

    pandas calls columns without a name 0, 1, ..., and its index nothing.
    """
    first = [cell.strip() for cell in rows[0]]
    if any(cell.lower().endswith(SUFFIXES) or "/" in cell for cell in first):
        return False
    integers = [_integer(cell) for cell in first]
    if all(k is None for k in integers):
        return not any(k is not None for k in _classes(first, integers, source))
    counted = [cell for cell in first if cell] == list(
        map(str, range(len(first) - first.count("")))
    )
    return counted and ("" in first or len(rows) == len(source.train_labels) + 1)


def _list(names: list[str], most: int = SHOWN_NAMES) -> str:
    return ", ".join(map(_shown, names[:most])) + (", ..." if len(names) > most else "")


def _shown(text) -> str:
    return printable(str(text)[:40]) or "''"
