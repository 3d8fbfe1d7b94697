"""Noisy labels that other projects made: which column they are, and which image each belongs to.

`_place` finds the image of each row, `_choose` decides which column is the noise. What is not
certain is refused, and what is not used is named.
"""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common.command_line import UserError
from dataset.label_file import ONLY, Column, read_columns, short
from dataset.noise import chance_probability
from dataset.sources import Source, numeric_names

# The names that label files give to the clean labels: CIFAR-10N, CIFAR-100N, HOC and others.
CLEAN_NAMES = ("clean_label", "clean_labels", "clean_label_train", "true_label", "true_labels")
IDS = ("id", "image_id")  # where files have numbers, these are the files' own
BASES = {"index_from_0": 0, "index_from_1": 1}  # indices of some of the images do not show it
MISSING = -1  # the label of an image that a file leaves out, the image of a row of a test image
CHANCE = 0.001  # permuted labels that agree as well at least this often are called chance


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
    try:
        columns = read_columns(path, source)
        rows, how, by = _place(columns, source)
        column = _choose(columns, rows, source, name)
        noisy = _at_images(column, rows, source)
        _check_cells(column, rows, source)
        _check_complete(noisy, source, chosen)
        if not any_labels:
            _check_plausible(noisy, source, name)
    except UserError as error:
        raise UserError(f"--noise {path}: {error.args[0]}") from None
    used = (column.name, by, *CLEAN_NAMES)
    unused = [c.name for c in columns if c.name not in used and any(c.cells)]
    words = f"labels: {short(column.name)} of {path.name}, {how}"
    return noisy, words + (f"; not used: {_list(unused)}" if unused else "")


# --- which column is the noise ---


def _at_images(column: Column, rows: np.ndarray, source: Source) -> np.ndarray:
    """Labels int64 (N,) by image of a column by row; MISSING where there is none."""
    count = len(source.train_labels)
    if len(column.cells) != len(rows):
        raise UserError(
            f"{short(column.name)} has {len(column.cells)} labels, the data set {count} training "
            "images; labels are read for all of them, before --train-size and --val-size"
        )
    values = np.array([MISSING if k is None else k for k in column.classes], np.int64)
    labels = np.full(count, MISSING)
    labels[rows[rows != MISSING]] = values[rows != MISSING]
    return labels


def _choose(columns: list[Column], rows: np.ndarray, source: Source, name: str | None) -> Column:
    """The column of the noisy labels: `name`, or the only one that can be."""
    clean = source.train_labels
    known = {c.name: c for c in columns if c.role == "labels"}
    stated = [n for n in known if n in CLEAN_NAMES]
    for n in stated:
        _check_clean(n, _at_images(known[n], rows, source), clean)
    others = {n: c for n, c in known.items() if n not in stated}
    labels = {
        n: _at_images(c, rows, source) for n, c in others.items() if len(c.cells) == len(rows)
    }
    fitting = [n for n, values in labels.items() if not _odd(values, clean)]
    noisy = [n for n in fitting if _differ(labels[n], clean)]
    offer = f"use --labels with one of {_list(noisy)}" if noisy else "see docs/usage.md"
    if name is None:
        _refuse_unread(columns, noisy)
    else:
        others |= {c.name: c for c in columns if c.role == "other" and c.name not in CLEAN_NAMES}
        if name not in others:
            way = "leave --labels out" if noisy == [ONLY] else offer
            raise UserError(f"no noisy labels '{short(name)}' in it; {way}")
        noisy = [name]
    if "label" in fitting and noisy != ["label"] and not stated:
        way = "rename it" if name else "--labels label uses it"
        _check_clean("label", labels["label"], clean, f"; if it is noise, {way}")
    if len(noisy) > 1:
        raise UserError(f"it holds {len(noisy)} lists of labels; {offer}")
    if not noisy and not fitting and len(labels) > 1:  # no guess which of them, on any demand
        raise UserError(
            f"{_odd(next(iter(labels.values())), clean)}, and so in each of its {len(labels)} "
            "lists; save one-hot labels as class numbers, or use --labels with one of "
            f"{_list([*labels])}"
        )
    # What is not noisy is refused later, with its reason.
    found = noisy or fitting or [*labels] or [*others]
    if not found:
        raise UserError("it holds no noisy labels; see docs/usage.md")
    return others[found[0]]


def _refuse_unread(columns: list[Column], noisy: list[str]) -> None:
    """Refuse to leave out a column that was meant to be labels, but whose cells are none."""
    for column in [c for c in columns if c.role == "other" and None in c.classes]:
        meant = re.search("label|nois|annotat", column.name, re.IGNORECASE)
        flags = {str(cell).lower() for cell in column.cells} <= {"true", "false"}
        if not noisy or (meant and not flags):
            raise column.error(
                column.classes.index(None),
                "which is no label; use class numbers or names, or name another column with "
                "--labels",
            )


def _check_clean(name: str, listed: np.ndarray, clean: np.ndarray, way: str = "") -> None:
    """Refuse clean labels (N,) beside the noisy ones that are not the data set's."""
    if differ := _differ(listed, clean):
        raise UserError(
            f"its clean labels, {short(name)}, differ from the data set's in {differ} of "
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


def _check_cells(column: Column, rows: np.ndarray, source: Source) -> None:
    """Refuse a column unless all its cells are labels, in one way only; not of test images."""
    used = np.flatnonzero(rows != MISSING).tolist()
    classes, numbers = len(source.class_names), numeric_names(source.class_names)
    wrong = next((row for row in used if column.classes[row] is None), None)
    if wrong is not None:
        found = [value for value in column.integers if value is not None]
        span = f" (from {min(found)} to {max(found)})"[:60] if len(found) > 1 else ""
        raise column.error(
            wrong,
            f"which is no label{span}; a label is an integer of 0..{classes - 1} or a class name",
        )
    integers = [column.integers[row] for row in used]
    both = numbers and all(k in numbers and 0 <= k < classes for k in integers)
    if both and any(numbers[k] != k for k in integers):
        raise UserError(
            f"{short(column.name)} may hold class names or class numbers from 0, since the "
            "classes are named by numbers; rename the class folders, as in class1"
        )


def _check_complete(noisy: np.ndarray, source: Source, chosen: np.ndarray | None) -> None:
    chosen = np.arange(len(noisy)) if chosen is None else np.sort(chosen)
    absent = chosen[noisy[chosen] == MISSING]
    if len(absent):
        first = source.train_files[absent[0]] if source.train_files else f"image {absent[0]}"
        raise UserError(f"it has no label for {len(absent)} training images, first {short(first)}")


def _check_plausible(noisy: np.ndarray, source: Source, name: str | None) -> None:
    """Refuse labels that agree no better than chance, are of another kind, or are clean."""
    present, num_classes = noisy != MISSING, len(source.class_names)
    clean, noisy = source.train_labels[present], noisy[present]
    accept = "to use it anyway, add --accept-chance-labels"
    if odd := _odd(noisy, clean):
        raise UserError(f"{odd}, not {num_classes} classes; {accept}")
    agree, count = int((noisy == clean).sum()), len(clean)
    if agree == count and name is None:
        raise UserError("its labels are the clean ones, none is wrong; use --noise none")
    probability = chance_probability(clean, noisy, num_classes)
    if probability <= CHANCE and agree * num_classes > count:
        return
    words = "no better than chance: it belongs to other images or another order"
    if CHANCE < probability < 0.05 and count < 200:
        words = f"too few to tell it from permuted labels (p = {probability:.2g})"
    raise UserError(f"{agree} of {count} labels agree with the clean ones, {words}; {accept}")


# --- which image a row belongs to ---


def _place(columns: list[Column], source: Source) -> tuple[np.ndarray, str, str | None]:
    """The image of each row (R,), MISSING for a test image; how it was found; by which column."""
    places, errors, kind = {}, [], "file name"
    for column in [c for c in columns if c.role == "files"]:
        try:
            places[column.name] = _by_file(column, source), ""
        except UserError as error:
            errors.append(error)
    if errors and not places:
        raise errors[0]
    if not places:
        kind = "index"
        places = {c.name: _by_index(c, source) for c in columns if c.role == "index"}
        # pandas writes the number of the row beside: it is used only if there is nothing else.
        counted = [name for name, (rows, _) in places.items() if (np.diff(rows) == 1).all()]
        places = {n: place for n, place in places.items() if n not in counted[: len(places) - 1]}
    if not places:
        order = f", so they count as {_list(source.train_files, 3)}" if source.is_folder else ""
        rows = np.arange(len(source.train_labels))
        return rows, f"placed by position: the file names no images{order}", None
    (name, (rows, how)), *others = places.items()
    for other, (more, _) in others:
        if not np.array_equal(rows, more):
            raise UserError(f"{short(name)} and {short(other)} name other images; remove one")
    if kind == "index" and how and name not in IDS:  # the row's number, or the file's?
        numbers = next(column.integers for column in columns if column.name == name)
        if sorted(numbers) == list(range(len(rows))) and not np.array_equal(rows, numbers):
            raise UserError(
                f"{short(name)} may count the images, or be the numbers in the files' names; call "
                "it index_from_0 or id, or give the files' names"
            )
    tests = int((rows == MISSING).sum())
    left = f", {tests} rows of test images left out" if tests else ""
    return rows, f"placed by {kind} ({short(name)}{how}{left})", name


def _by_index(column: Column, source: Source) -> tuple[np.ndarray, str]:
    """The images of a column of indices, which count the images from 0 or from 1, or a part.

    In a folder they are the numbers at the end of the files' names, if no two have the same.
    """
    numbers, count = column.integers, len(source.train_labels)
    if None in numbers:
        raise column.error(numbers.index(None), "which is no index")
    _refuse_doubles(column, numbers)
    ends = [re.search(r"[0-9]{1,9}$", Path(file).stem) for file in source.train_files or []]
    image = {int(end[0]): k for k, end in enumerate(ends) if end}
    if source.is_folder and len(image) == count and column.name not in BASES:
        rows = [image.get(number) for number in numbers]
        if None in rows:
            raise column.error(rows.index(None), "but no image has that number in its name")
        return np.array(rows), ", as the files' names"
    low, high = min(numbers), max(numbers)
    base = BASES.get(column.name, 1 if high == count else 0 if low == 0 else None)
    if base is None or low < base or high - base >= count:
        raise UserError(
            f"{short(column.name)} goes from {low} to {high}, which does not count {count} "
            f"training images; name it {' or '.join(BASES)} for a part, or remove it"
        )
    return np.array(numbers) - base, "" if base == 0 else ", from 1"


def _refuse_doubles(column: Column, rows: list[int]) -> None:
    seen = set()
    for row, image in enumerate(rows):
        if image in seen and image != MISSING:
            raise column.error(row, "for the second time; give each image once")
        seen.add(image)


def _by_file(column: Column, source: Source) -> np.ndarray:
    """The images of a column of file names: relative paths, or unique ends of them.

    A file .../test/<class>/<file> is no training image, also if test/ lacks it.
    """
    for row, cell in enumerate(column.cells):
        if not isinstance(cell, str) or not cell:
            raise column.error(row, "which is no file name")
    folders = {f"test/{unicodedata.normalize('NFC', name)}" for name in source.class_names}
    tests = [_end(name, 3, "file").rpartition("/")[0] in folders for name in column.cells]
    missed = [None] * len(column.cells)
    for parts, form, train, test in _namings(source, len(column.cells)):
        image = {_end(name, parts, form): k for k, name in enumerate(train)}
        if not train or len(image) < len(train):
            continue
        image = {**{_end(name, parts, form): MISSING for name in test}, **image}
        rows = [
            MISSING if of_test else image.get(_end(name, parts, form))
            for name, of_test in zip(column.cells, tests, strict=True)
        ]
        if None not in rows:
            _refuse_doubles(column, rows)
            return np.array(rows)
        if rows.count(None) < missed.count(None):
            missed = rows
    raise column.error(
        missed.index(None),
        "but no training image has that name; remove the column if it names no images",
    )


def _namings(source: Source, count: int) -> Iterator[tuple]:
    """The ways to name images: how many parts of the path, what of the last, the names.

    Of CIFAR also the official order as in confident learning (arXiv 1911.00068),
    10008_airplane.png, and only for all images, since a part does not show whether it counts from
    0 or from 1: 10008.png, and cat/0001.png by class, as OpenOOD numbers them.
    """
    train, test = source.train_files or [], source.test_files or []
    for parts in (3, 2, 1):
        yield parts, "file", train, test
    yield 1, "stem", train, test
    if source.is_folder:
        return
    classes = [source.class_names[k] for k in source.train_labels]
    yield 1, "number", [f"{k}_{name}" for k, name in enumerate(classes)], []
    if count >= len(classes):
        seen, ranks = Counter(), []
        for name in classes:
            ranks.append((name, seen[name]))
            seen[name] += 1
        for base in (0, 1):  # these first: in them, 0001.png alone names no image
            yield 2, "number", [f"{name}/{rank + base}" for name, rank in ranks], []
        for base in (0, 1):
            yield 1, "number", [str(k + base) for k in range(len(classes))], []


def _end(name: str, parts: int, form: str) -> str:
    """The last parts of a path: a file, its stem, or its stem without zeros before a number."""
    *folders, end = unicodedata.normalize("NFC", name.replace("\\", "/")).split("/")[-parts:]
    if form != "file":
        end = os.path.splitext(end)[0]
    if form == "number":
        end = re.sub("^0+(?=[0-9])", "", end)
    return "/".join([*folders, end])


def _list(names: list[str], most: int = 6) -> str:
    return ", ".join(map(short, names[:most])) + (", ..." if len(names) > most else "")
