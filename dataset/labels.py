"""Noisy labels that other projects made: which column they are, and which image each belongs to.

`_place` finds the image of each row, `_choose` decides which column is the noise. What is not
certain is refused, and what is not used is named.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from common.command_line import UserError
from dataset.label_file import Column, read_columns, short
from dataset.noise import chance_probability
from dataset.sources import Source, numeric_names

# The names that label files give to the clean labels: CIFAR-10N, CIFAR-100N, HOC and others.
CLEAN_NAMES = ("clean_label", "clean_labels", "clean_label_train", "true_label", "true_labels")
POSITION = "index_from_0"  # a column of this name counts the images, or some of them, from 0
TEST_FILE = re.compile("(^|/)(test|val)/[^/]+/[^/]+$")  # also if the folder lacks it
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
            _check_plausible(noisy, source)
    except UserError as error:
        raise UserError(f"--noise {path}: {error.args[0]}") from None
    used = (column.name, by, *CLEAN_NAMES)
    unused = [c.name for c in columns if c.name not in used and any(c.cells)]
    words = f"labels: {short(column.name)} of {path.name}, {how}"
    return noisy, words + (f"; not used: {_list(unused)}" if unused else "")


# --- which column is the noise ---


def _choose(columns: list[Column], rows: np.ndarray, source: Source, name: str | None) -> Column:
    """The column of the noisy labels: `name`, or the only one that can be."""
    clean = source.train_labels
    found = {c.name: c for c in columns if c.role in ("labels", "other")}
    labels = {n: _at_images(c, rows, source) for n, c in found.items() if c.role == "labels"}
    stated = [n for n in labels if n in CLEAN_NAMES]
    differing = [n for n in labels if n not in stated and _differ(labels[n], clean)]
    noisy = [n for n in differing if not _odd(labels[n], clean)]
    if name is not None and (name not in found or name in CLEAN_NAMES):
        raise UserError(
            f"it holds no noisy labels '{short(name)}', only {_list(noisy) or 'clean ones'}; "
            "correct --labels, or leave it out"
        )
    # `label` is the noise only if it is asked for, or alone.
    if "label" in noisy and name != "label" and {*noisy, name} != {"label", None}:
        stated = stated or ["label"]
    for n in stated:
        if differ := _differ(labels[n], clean):
            raise UserError(
                f"its clean labels, {short(n)}, differ from the data set's in {differ} of "
                f"{len(clean)} places: it belongs to other images or to another order; if they "
                "are noise, rename the column"
            )
    if name is None:
        _refuse_unread(found.values(), noisy)
        names = noisy or differing or [n for n in labels if n not in stated]
        if len(names) > 1:
            raise UserError(f"several label columns; use --labels with one of {_list(names)}")
        if not names:
            raise UserError("it holds no noisy labels; see docs/usage.md")
        name = names[0]
    return found[name]


def _refuse_unread(columns: Iterable[Column], noisy: list[str]) -> None:
    """Refuse to leave out a column that was meant to be labels, but whose cells are none."""
    for column in [c for c in columns if c.role == "other" and None in c.classes]:
        meant = re.search("label|nois|annotat", column.name, re.IGNORECASE)
        flags = {str(cell).lower() for cell in column.cells} <= {"true", "false"}
        if not noisy or (meant and not flags):
            words = "not a label; use class numbers or names, or name another column with --labels"
            raise column.error(column.classes.index(None), words)


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
        kinds = f"an integer from 0 to {classes - 1} or a class name"
        raise column.error(wrong, f"not a label{span}; a label is {kinds}")
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


def _check_plausible(noisy: np.ndarray, source: Source) -> None:
    """Refuse labels that agree no better than chance, are of another kind, or are clean."""
    present, num_classes = noisy != MISSING, len(source.class_names)
    clean, noisy = source.train_labels[present], noisy[present]
    accept = "to use it anyway, add --accept-chance-labels"
    if odd := _odd(noisy, clean):
        raise UserError(f"{odd}, not {num_classes} classes; {accept}")
    agree, count = int((noisy == clean).sum()), len(clean)
    if agree == count:
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
    for role, kind, find in (("files", "file name", _by_file), ("index", "index", _by_index)):
        places = {c.name: find(c, source) for c in columns if c.role == role}
        if places:
            (name, (rows, how)), *others = places.items()
            for other, (more, _) in others:
                if not np.array_equal(rows, more):
                    raise UserError(
                        f"{short(name)} and {short(other)} differ on images; remove one"
                    )
            return rows, f"placed by {kind} ({short(name)}{how})", name
    order = f", so they count as {_list(source.train_files, 3)}" if source.is_folder else ""
    rows = np.arange(len(source.train_labels))
    return rows, f"placed by position: the file names no images{order}", None


def _by_index(column: Column, source: Source) -> tuple[np.ndarray, str]:
    """The images of a column of indices, which count all of them from 0 or from 1, or a part.

    Refused where the numbers may also be those at the end of the files' names.
    """
    numbers, count = column.integers, len(source.train_labels)
    if None in numbers:
        raise column.error(numbers.index(None), "not an index")
    _refuse_doubles(column, numbers)
    low, high, remedy = min(numbers), max(numbers), f"give file names, or rename it {POSITION}"
    from_1 = column.name != POSITION and low > 0
    if low < 0 or high - from_1 >= count or (from_1 and high < count):
        words = f"goes from {low} to {high}, which does not count {count} training images"
        raise UserError(f"{short(column.name)} {words}; {remedy}")
    rows = np.array(numbers) - from_1
    ends = [re.search(r"[0-9]{1,9}$", Path(file).stem) for file in source.train_files or []]
    named = {int(end[0]): k for k, end in enumerate(ends) if end}
    unclear = source.is_folder and len(named) == count and column.name != POSITION
    if unclear and [named.get(number) for number in numbers] != rows.tolist():
        words = "may count the images, or be the numbers in the files' names"
        raise UserError(f"{short(column.name)} {words}; {remedy}")
    return rows, ", from 1" if from_1 else ""


def _by_file(column: Column, source: Source) -> tuple[np.ndarray, str]:
    """The images of a column of file names: relative paths, or unique ends of them."""
    for row, cell in enumerate(column.cells):
        if not isinstance(cell, str) or not cell:
            raise column.error(row, "not a file name")
    tests = [bool(TEST_FILE.search(_end(name, 3))) for name in column.cells]
    found = []
    for parts, train, test in _namings(source):
        image = {_end(name, parts): k for k, name in enumerate(train)}
        if len(image) == len(train):
            image = {_end(name, parts): MISSING for name in test} | image
            rows = [image.get(_end(name, parts)) for name in column.cells]
            found.append([MISSING if t else row for t, row in zip(tests, rows, strict=True)])
    rows = min(found, key=lambda rows: rows.count(None))
    if None in rows:
        words = "but no training image has that name; remove the column if it names no images"
        raise column.error(rows.index(None), words)
    _refuse_doubles(column, rows)
    left = rows.count(MISSING)
    return np.array(rows), f", {left} rows of test images left out" if left else ""


def _refuse_doubles(column: Column, rows: list[int]) -> None:
    seen = set()
    for row, image in enumerate(rows):
        if image in seen and image != MISSING:
            raise column.error(row, "for the second time; give each image once")
        seen.add(image)


def _namings(source: Source) -> list[tuple[int, list[str], list[str]]]:
    """The ways to name images: how many parts of the path, the names of train and test.

    Of CIFAR also by its official order: 10008_airplane.png as in confident learning
    (arXiv 1911.00068), and by class from 1, cat/0001.png, as in OpenOOD.
    """
    train, test = source.train_files or [], source.test_files or []
    namings = [(parts, train, test) for parts in (3, 2, 1)]
    if source.is_folder:
        return namings
    classes, seen, ranked = [source.class_names[k] for k in source.train_labels], Counter(), []
    for name in classes:
        seen[name] += 1
        ranked.append(f"{name}/{seen[name]:04}.png")
    counted = [f"{k}_{name}.png" for k, name in enumerate(classes)]
    return [*namings, (1, counted, []), (2, ranked, [])]


def _end(name: str, parts: int) -> str:
    """The last parts of a path."""
    return "/".join(unicodedata.normalize("NFC", name.replace("\\", "/")).split("/")[-parts:])


def _list(names: list[str], most: int = 6) -> str:
    return ", ".join(map(short, names[:most])) + (", ..." if len(names) > most else "")
