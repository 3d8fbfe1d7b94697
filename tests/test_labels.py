"""dataset/labels.py, label_file.py: label files of all layouts, the right labels or the refusal."""

import io
import json
import os
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from common.command_line import MAX_CHARACTERS, UserError
from dataset.labels import read_labels
from dataset.noise import flip_labels
from dataset.sources import Source

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
COUNT = 60
CLEAN = np.random.default_rng(0).permutation(np.arange(COUNT) % 10)
NOISY = np.where(np.arange(COUNT) % 3 == 0, (CLEAN + 3) % 10, CLEAN)
OTHER = np.where(np.arange(COUNT) % 4 == 0, (CLEAN + 1) % 10, CLEAN)
SWAPPED = np.concatenate((CLEAN[[1, 0]], CLEAN[2:]))  # every count stays the same
INDEX = np.arange(COUNT)


def make_source(clean=CLEAN, classes=CLASSES, train_files=None, test_files=None) -> Source:
    images = np.zeros((len(clean), 1, 1, 3), np.uint8)
    folder = "/" in "".join(train_files or [])
    return Source(
        images, clean, images[:3], clean[:3], list(classes), train_files, test_files, folder
    )


def make_folder(classes=CLASSES, name="{}.png", unique=False) -> Source:
    """A folder: class by class, file by file in the order of the names as text."""
    files, labels = [], []
    for label, folder in enumerate(classes):
        numbers = range(6 * label if unique else 0, 6 * label + 6 if unique else 12, 1)
        for file in sorted(name.format(k) for k in list(numbers)[-12:]):
            files.append(f"train/{folder}/{file}")
            labels.append(label)
    return make_source(np.array(labels), classes, files, ["test/cat/t1.png", "test/dog/0.png"])


PLAIN = make_source()
FOLDER = make_folder()  # 12 files of each class, 0.png to 11.png: 10.png stands before 2.png
UNIQUE = make_folder(name="{:03}.jpg", unique=True)  # 6 of each, one number for each file
OFFICIAL = make_source(train_files=[f"{CLASSES[k]}_s_{i:06}.png" for i, k in enumerate(CLEAN)])
WORDS = make_folder(name="img_{}.jpg", unique=True)  # img_10 stands before img_6
NAMED_TEST = make_folder(classes=["cat", "dog", "test"])
NUMBERED = make_folder(classes=[str(k) for k in (3, 7, 11)])


def noise_of(source: Source) -> np.ndarray:
    """A third of the labels is wrong, and within a class some are and some are not."""
    if source.train_labels is CLEAN:
        return NOISY
    classes = [str(k) for k in range(len(source.class_names))]
    return flip_labels(source.train_labels, "symmetric", 1 / 3, classes, seed=1)


def csv(*columns, header=None, delimiter=",", order=None) -> bytes:
    rows = list(zip(*columns, strict=True))
    rows = rows if order is None else [rows[k] for k in order]
    lines = [] if header is None else [header]
    return "\n".join(lines + [delimiter.join(map(str, row)) for row in rows]).encode() + b"\n"


def as_json(content) -> bytes:
    return json.dumps(content, default=lambda array: array.tolist()).encode()


def saved(write, content, **options) -> bytes:
    buffer = io.BytesIO()
    write(content, buffer, **options) if write is torch.save else write(buffer, content, **options)
    return buffer.getvalue()


def as_npy(array, **options) -> bytes:
    return saved(np.save, array, **options)


def as_pt(content, **options) -> bytes:
    return saved(torch.save, content, **options)


def text_of(labels, form="%.18e") -> bytes:
    buffer = io.BytesIO()
    np.savetxt(buffer, labels, fmt=form)
    return buffer.getvalue()


def names_of(source, parts=3) -> list[str]:
    return ["/".join(file.split("/")[-parts:]) for file in source.train_files]


def natural(source) -> list[int]:
    """The rows in natural order, 2.png before 10.png, last class first."""
    numbers = [int(file.split("/")[-1].split(".")[0]) for file in source.train_files]
    return np.lexsort((numbers, -source.train_labels)).tolist()


def with_gap(values, gap="") -> list:
    return [gap if k == 17 else value for k, value in enumerate(values)]


MIXED = np.random.default_rng(3).permutation(COUNT)
NOISY_FOLDER, NOISY_UNIQUE, NOISY_NUMBERED = map(noise_of, (FOLDER, UNIQUE, NUMBERED))
NUMBER_OF = [int(file.split("_")[1].split(".")[0]) for file in WORDS.train_files]
NOISY_WORDS = noise_of(WORDS)[np.argsort(NUMBER_OF)]  # by the number of the file
CLASS_NAMES = [CLASSES[k] for k in NOISY]
PATHS = names_of(FOLDER)
FOLDER_ROWS = natural(FOLDER)
CIFAR10N = {"clean_label": CLEAN, "worse_label": NOISY, "aggre_label": OTHER}
IN_CLASS = [f"x/{CLASSES[y]}/{np.sum(CLEAN[:k] == y) + 1:04}.png" for k, y in enumerate(CLEAN)]
LABELS, TWO = NOISY.tolist(), np.arange(20) % 2
LONG, ESCAPES, RAW = "x" * 5000, "\x1b]0;title\x07\x1b[31m", bytes(range(256)) * 20
FLOATS = [f"{k}.0" for k in NOISY]


def case(content, words="", suffix="csv", source=PLAIN, labels=None) -> tuple:
    """A file's content, words of what is said, its suffix, the data set, --labels."""
    return content, words, suffix, source, labels


def json_case(content, words="", source=PLAIN, labels=None) -> tuple:
    return case(as_json(content), words, "json", source, labels)


def npy_case(array, words="", source=PLAIN, labels=None) -> tuple:
    return case(as_npy(np.asarray(array)), words, "npy", source, labels)


def pt_case(content, words="", source=PLAIN, labels=None, **options) -> tuple:
    return case(as_pt(content, **options), words, "pt", source, labels)


BY_POSITION = "placed by position"
OLD_PT = {"_use_new_zipfile_serialization": False}
VERTICAL = ["vertical bars", *CLASSES[1:]]
BY_FILE = [(PATHS[k], int(NOISY_FOLDER[k])) for k in FOLDER_ROWS]
LAYOUTS = {
    "JSON list": json_case(NOISY, BY_POSITION),
    "JSON with a byte order mark": case(b"\xef\xbb\xbf" + as_json(NOISY), suffix="json"),
    "JSON of whole floats": json_case(NOISY.astype(float)),
    "JSON of class names": json_case(CLASS_NAMES),
    "JSON (N, 1)": json_case(NOISY[:, None]),
    "JSON pairs": json_case(BY_FILE, "by file name (0)", FOLDER),
    "JSON with numbers beside": json_case({"rate": 0.3, "seed": 1, "labels": NOISY}),
    "JSON by index": json_case({str(k): NOISY[k] for k in MIXED}, "by index (file)"),
    "JSON by path": json_case({f"/d/{file}": y for file, y in BY_FILE}, "by file name", FOLDER),
    "JSON records": json_case(
        [{"path": file, "noisy": y} for file, y in BY_FILE], "by file name (path)", FOLDER
    ),
    "JSON of records by name": json_case(
        {file: {"noisy": y, "who": "x"} for file, y in BY_FILE}, "not used: who", FOLDER
    ),
    "JSON of test labels beside": json_case({"y": NOISY, "test": NOISY[:9]}, "test", labels="y"),
    "confident learning": json_case(
        {f"/c/train/x/{k}_{CLASSES[CLEAN[k]]}.png": NOISY[k] for k in MIXED}, "by file name"
    ),
    "Windows paths of a folder": json_case(
        {f"C:\\x\\{UNIQUE.train_files[k]}".replace("/", "\\"): NOISY_UNIQUE[k] for k in MIXED},
        "by file name",
        UNIQUE,
    ),
    "npy": npy_case(NOISY.astype(np.uint8), BY_POSITION),
    "npy big endian (N, 1)": npy_case(NOISY[:, None].astype(">i4")),
    "npy of whole floats": npy_case(NOISY.astype(np.float32)),
    "tensor": pt_case(torch.from_numpy(NOISY), BY_POSITION),
    "CIFAR-10N": pt_case(CIFAR10N, "not used: aggre_label", labels="worse_label"),
    "CIFAR-10N, old format": pt_case(CIFAR10N, labels="worse_label", **OLD_PT),
    "CIFAR-10N, numpy 1": case(
        as_pt(CIFAR10N, **OLD_PT).replace(b"numpy._core.", b"numpy.core."),
        *("", "pt", PLAIN, "worse_label"),
    ),
    "labels by integer": pt_case({int(k): int(NOISY[k]) for k in MIXED}, "by index"),
    "a column without a name": case(csv(NOISY), BY_POSITION),
    "a column": case(csv(NOISY, header="noisy"), BY_POSITION),
    "a column of class names": case(csv(CLASS_NAMES, header="noisy")),
    "class names without a header": case(csv(CLASS_NAMES)),
    "one line": case(csv(*NOISY[:, None])),
    "np.savetxt": case(text_of(NOISY)),
    "clean and noisy": case(csv(CLEAN, NOISY, header="label,label_noisy"), "label_noisy of"),
    "clean and noisy names": case(csv(CLEAN, CLASS_NAMES, header="label,noisy_label"), "noisy_"),
    "noisy and clean": case(csv(NOISY, CLEAN, header="label,gt"), "label of"),
    "noisy and clean by name": case(csv(NOISY, CLEAN, header="label,gt"), labels="label"),
    "label, asked for": case(csv(NOISY, OTHER, header="label,other"), "label of", labels="label"),
    "pandas": case(csv(INDEX, CLEAN, NOISY, header=",label,noisy"), "by index ('')"),
    "pandas, shuffled": case(csv(INDEX, CLEAN, NOISY, header=",label,n", order=MIXED), "index"),
    "pandas, index reset after shuffling": case(
        csv(INDEX, MIXED, NOISY[MIXED], header=",sample,noisy"), "by index (sample)"
    ),
    "pandas Series": case(csv(INDEX, NOISY, header=",0"), "by index ('')"),
    "pandas header 0": case(csv(NOISY, header="0"), BY_POSITION),
    "ids from 1": case(
        csv(INDEX + 1, NOISY, header="id,label", order=MIXED), "by index (id, from 1)"
    ),
    "three without a header": case(csv(CLEAN, OTHER, NOISY), "not used: 0, 1", labels="2"),
    "semicolons": case(csv(INDEX, NOISY, header="i;n", delimiter=";"), "by index"),
    "tabs and a class with a blank": case(
        csv(INDEX, ["vertical bars" if k == 0 else k for k in NOISY], delimiter="\t"),
        *("by index", "tsv", make_source(classes=VERTICAL)),
    ),
    "commas and a class with a blank": case(
        csv(FOLDER.train_files, [VERTICAL[k] for k in NOISY_FOLDER], order=FOLDER_ROWS),
        *("by file name", "csv", replace(FOLDER, class_names=VERTICAL)),
    ),
    "quotes, BOM, Windows lines": case(
        b"\xef\xbb\xbf" + csv([f'"{k}"' for k in NOISY], header='"noisy"').replace(b"\n", b"\r\n")
    ),
    "annotators": case(csv(INDEX, NOISY, OTHER, header="image,a1,a2"), "a1 of", labels="a1"),
    "a score": case(csv(NOISY, np.linspace(0.1, 0.9, COUNT), header="n,s"), "not used: s"),
    "flags": case(csv(NOISY, NOISY != CLEAN, header="n,is_noisy"), "not used: is_noisy"),
    "a trailing comma": case(csv(NOISY, [""] * COUNT, header="n,"), f"{BY_POSITION}: the file"),
    "a mask": case(csv(NOISY, 1 * (NOISY != CLEAN), header="n,mask"), "not used: mask"),
    "natural order": case(
        csv(PATHS, NOISY_FOLDER, header="file,n", order=FOLDER_ROWS), "name (file)", source=FOLDER
    ),
    "OpenOOD": case(
        csv([f"cifar10/{p}" for p in PATHS], NOISY_FOLDER, delimiter=" ", order=FOLDER_ROWS),
        *("by file name (0)", "txt", FOLDER),
    ),
    "class and file": case(
        csv(names_of(FOLDER, 2), NOISY_FOLDER, order=FOLDER_ROWS), "by file name", source=FOLDER
    ),
    "unique file names": case(
        csv(names_of(UNIQUE, 1), NOISY_UNIQUE, order=MIXED), "by file name", source=UNIQUE
    ),
    "ids that are the files' names": case(
        csv(INDEX, NOISY_UNIQUE, header="id,n", order=MIXED), "as the files' names", source=UNIQUE
    ),
    "ids that are numbers in the files' names": case(
        csv(INDEX, NOISY_WORDS, header="id,n", order=MIXED), "as the files' names", source=WORDS
    ),
    "positions of images whose names have other numbers": case(
        csv(INDEX, noise_of(WORDS), header="index_from_0,n", order=MIXED),
        *("by index (index_from_0)", "csv", WORDS),
    ),
    "a folder by position": case(
        csv(NOISY_FOLDER),
        "so they count as train/airplane/0.png, train/airplane/1.png, train/air",
        source=FOLDER,
    ),
    "rows of test images": case(
        csv([*PATHS, "test/cat/t1.png", "test/dog/0.png"], [*NOISY_FOLDER, 3, 5]),
        *("2 rows of test images left out", "csv", FOLDER),
    ),
    "rows of test images without labels": case(
        csv([*PATHS, "test/cat/t1.png", "test/dog/0.png"], [*NOISY_FOLDER, "", -1]),
        *("2 rows of test images left out", "csv", FOLDER),
    ),
    "rows of test images that the folder lacks": case(
        csv([*PATHS, "test/cat/1.png", "a\\test\\dog\\5.png"], [*NOISY_FOLDER, 3, 5]),
        *("2 rows of test images left out", "csv", FOLDER),
    ),
    "a class called test": case(
        csv(names_of(NAMED_TEST, 2), noise_of(NAMED_TEST), order=range(35, -1, -1)),
        *("by file name", "csv", NAMED_TEST),
    ),
    "Noisy Imagenette": case(
        csv(
            *(PATHS, *([CLASSES[k] for k in y] for y in (FOLDER.train_labels, NOISY_FOLDER))),
            *([CLASSES[(k + 1) % 10] for k in FOLDER.train_labels], ["False"] * len(PATHS)),
            header="path,noisy_labels_0,noisy_labels_1,noisy_labels_5,is_valid",
            order=FOLDER_ROWS,
        ),
        *("by file name (path)", "csv", FOLDER, "noisy_labels_1"),
    ),
    "CIFAR's own names": case(
        csv(OFFICIAL.train_files, NOISY, header="file,n", order=MIXED),
        "name (file)",
        "csv",
        OFFICIAL,
    ),
    "CIFAR by number": case(
        csv([f"{k:05}.png" for k in INDEX], NOISY, order=MIXED), "by file name", "csv", OFFICIAL
    ),
    "OpenOOD's numbers for CIFAR": case(
        csv(IN_CLASS, NOISY, delimiter=" ", order=MIXED),
        *("by file name (0)", "txt", OFFICIAL),
    ),
    "classes named by other numbers": case(
        csv(names_of(NUMBERED), np.array([3, 7, 11])[NOISY_NUMBERED], header="file,n"),
        *("by file name", "csv", NUMBERED),
    ),
    "export of a part": json_case(
        {"index_from_0": INDEX[5:50], "label": NOISY[5:50]}, "by index (index_from_0)"
    ),
    "the rest, from 1": json_case(
        {"index_from_1": INDEX[5:50] + 1, "label": NOISY[5:50]}, "(index_from_1, from 1)"
    ),
}


PARTS = ("export of a part", "the rest, from 1")


def read(tmp_path, content, words, suffix, source, labels, **options):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content() if callable(content) else content)
    return read_labels(path, labels, source, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout(tmp_path, layout):
    _, words, _, source, _ = LAYOUTS[layout]
    chosen = INDEX[5:50] if layout in PARTS else np.arange(len(source.train_labels))
    noisy, printed = read(tmp_path, *LAYOUTS[layout], chosen=chosen)
    np.testing.assert_array_equal(noisy[chosen], noise_of(source)[chosen])
    assert noisy.dtype == np.int64 and words in printed and "\n" not in printed


# --- refusals ---


class Foreign:
    """Unpickled, it makes the folder `executed`."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def huge_npy() -> bytes:
    """A header of 10^12 labels, and none."""
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\0" * 50_000_000)
    return buffer.getvalue()


# What is wrong: a gap, what is no label, a length.
REFUSALS = {
    "a gap": case(
        csv(CLEAN, with_gap(NOISY), header="label,noisy_label"), "noisy_label, line 19, is empty"
    ),
    "an annotator's gap": case(
        csv(INDEX, with_gap(NOISY), OTHER, header="i,a1,a2"), "a1, line 19, is empty", labels="a1"
    ),
    "two annotators, one with a gap": case(
        csv(INDEX, with_gap(NOISY), OTHER, header="i,a1,a2"), "use --labels with one of a1, a2"
    ),
    "two annotators, one with many gaps": case(
        csv(INDEX, np.where(INDEX % 3, "", NOISY), OTHER, header="i,a1,a2"), "one of a1, a2"
    ),
    "null": json_case(with_gap(LABELS, None), "entry 17, is empty"),
    "NaN": npy_case(with_gap(NOISY, np.nan), "entry 17, has 'nan', which is no label"),
    "one half": case(csv(with_gap(NOISY, 0.5)), "line 18, has '0.5'"),
    "another spelling": case(
        csv(CLEAN, [CLASSES[k].upper() for k in NOISY], header="label,noisy_label"),
        "noisy_label, line 2, has '",
    ),
    "classes from 1": json_case(NOISY + 1, "(from 1 to 10)"),
    "large": json_case([10**25, *LABELS[1:]], "which is no label"),
    "floats": npy_case(np.linspace(0.1, 8.9, COUNT), "which is no label"),
    "booleans": json_case([True] * COUNT, "has 'True', which is no label"),
    "one-hot": npy_case(np.eye(10, dtype=int)[NOISY], "as if it were a mask"),
    "probabilities": npy_case(np.full((COUNT, 10), 0.1), "which is no label"),
    "too few": json_case(NOISY[:-1], "59 labels, the data set 60"),
    "too few of a name": pt_case(
        {**CIFAR10N, "worse_label": NOISY[:5]}, "worse_label has 5 labels", labels="worse_label"
    ),
    "a line too short": case(b"label,noisy\n0,1\n1\n", "line 3 has 1 cells"),
}
# Which column.
REFUSALS |= {
    "no name": pt_case(CIFAR10N, "--labels with one of worse_label, aggre_label"),
    "a name for one list": npy_case(NOISY, "leave --labels out", labels="worse_label"),
    "no such name": pt_case(CIFAR10N, "no noisy labels 'best' in it", labels="best"),
    "the clean labels": pt_case(CIFAR10N, "no noisy labels", labels="clean_label"),
    "only clean labels": json_case({"clean_label": CLEAN}, "no noisy labels"),
    "clean labels without a name": npy_case(CLEAN, "--noise none"),
    "label and another": case(csv(NOISY, OTHER, header="label,other"), "--labels label uses it"),
    "a doubled name": case(csv(CLEAN, NOISY, header="y,y"), "'y' is given twice"),
    "clean labels in another order": pt_case(
        {**CIFAR10N, "clean_label": SWAPPED}, "in 2 of 60 places", labels="worse_label"
    ),
    "clean labels of another length": json_case(
        {"clean_label": CLEAN[1:], "y": NOISY}, "clean_label has 59 labels"
    ),
    "label in another order": case(
        csv(SWAPPED, NOISY, header="label,noisy"), "in 2 of 60 places", labels="noisy"
    ),
}
# Labels of another kind, or by chance.
REFUSALS |= {
    "a mask": npy_case(1 * (NOISY != CLEAN), "as if it were a mask"),
    "a mask by name": case(csv(NOISY, CLEAN % 2, header="n,mask"), "as if it were", labels="mask"),
    "coarse labels": pt_case(
        {"noisy_coarse_label": np.arange(200) % 100 // 5},
        "20 superclasses",
        make_source(np.arange(200) % 100, map(str, range(100))),
    ),
    "another order": npy_case(np.random.default_rng(1).permutation(NOISY), "no better than chance"),
    "all wrong": npy_case((CLEAN + 1) % 10, "0 of 60 labels agree with the clean ones, no better"),
    "too few to tell": npy_case(
        np.where(np.arange(20) < 4, 1 - TWO, TWO),
        "16 of 20 labels agree with the clean ones, too few to tell it from permuted labels "
        "(p = 0.012)",
        make_source(TWO, ["a", "b"]),
    ),
    "classes named by numbers, read in two ways": npy_case(
        np.arange(36) % 2 + 1, "class names or class numbers", make_folder(classes=["1", "2", "3"])
    ),
}
# Which image.
REFUSALS |= {
    "a name that no image has": case(
        csv([*PATHS[:-1], "train/truck/99.png"], NOISY_FOLDER, header="f,n"),
        *("f, line 121, has 'train/truck/99.png', but no training image has that name",),
        source=FOLDER,
    ),
    "an image without a label": case(
        csv(PATHS[1:], NOISY_FOLDER[1:]),
        *("no label for 1 training images, first train/airplane/0.png", "csv", FOLDER),
    ),
    "a name given twice": case(
        csv([*PATHS[:-1], PATHS[0]], NOISY_FOLDER),
        *("line 120, has 'train/airplane/0.png', for the second time", "csv", FOLDER),
    ),
    "labels of the test images alone": case(
        csv([name.replace("train/", "test/") for name in PATHS], NOISY_FOLDER),
        *("no label for 120 training images", "csv", FOLDER),
    ),
    "a name twice in JSON": case(b'{"a": 1, "b": 2, "a": 3}', "'a' is given twice", "json"),
    "names that are not unique": case(
        csv(names_of(FOLDER, 1), NOISY_FOLDER), "no training image has", "csv", FOLDER
    ),
    "names with other zeros": case(
        csv([f"{k:05}.jpg" for k in INDEX], NOISY_UNIQUE), "no training image has", source=UNIQUE
    ),
    "an empty name": case(csv(with_gap(PATHS), NOISY_FOLDER), "line 18, is empty", "csv", FOLDER),
    "names of another data set": json_case(
        {f"p{k}.png": k % 10 for k in range(60)}, "no training image has that name"
    ),
    "two columns of names": case(
        csv(PATHS, PATHS[::-1], NOISY_FOLDER), "name other images", "csv", FOLDER
    ),
    "confident learning of other classes": json_case(
        {f"{k}_{CLASSES[SWAPPED[k]]}.png": NOISY[k] for k in INDEX},
        "no training image has that name",
    ),
    "confident learning from 1": json_case(
        {f"{k + 1}_{CLASSES[CLEAN[k]]}.png": NOISY[k] for k in INDEX},
        "no training image has that name",
    ),
    "ids given twice, half of them": case(
        csv(np.repeat(INDEX[:30], 2), NOISY, header="k,n"), "k, line 3, has '0', for the second"
    ),
    "a row number that files have in their names in another order": case(
        csv(INDEX, noise_of(WORDS), header=",n"), "call it index_from_0", "csv", WORDS
    ),
    "a row number that files have in their names in another order, named index": case(
        csv(INDEX, noise_of(WORDS), header="index,n"), "call it index_from_0", "csv", WORDS
    ),
    "an index with a gap": case(
        csv([*INDEX[:-1], 60], NOISY, header="id,n"), "0 to 60, which does not count 60"
    ),
    "an index given twice": case(
        csv([*INDEX[:-1], 3], NOISY, header="id,n"), "id, line 61, has '3', for the second time"
    ),
    "a part, from 0 or from 1": case(
        csv(INDEX[5:50], NOISY[5:50], header="index,n"), "name it index_from_0 or index_from_1"
    ),
    "a part of OpenOOD's numbers": case(
        csv(IN_CLASS[5:], NOISY[5:], delimiter=" "), "no training image has", "txt", OFFICIAL
    ),
    "ids that no file has": case(
        csv(INDEX + 1, NOISY_UNIQUE, header="id,n"),
        *("id, line 61, has '60', but no image has that number", "csv", UNIQUE),
    ),
}
# Files that cannot be read, or are an attack.
DAMAGED = ("json", "csv", "npy", "pt")
REFUSALS |= {
    **{f"empty {suffix}": case(b"", "cannot be read", suffix) for suffix in DAMAGED},
    **{f"bytes {suffix}": case(RAW, "cannot be read", suffix) for suffix in DAMAGED},
    "escape sequences": case(csv(NOISY, OTHER, header=f"a,{ESCAPES}"), r"\x1b]0;title\x07"),
    "escapes as names": case(csv([f"{ESCAPES}{k}" for k in INDEX], NOISY), r"\x1b]0;title\x07"),
    "UTF-16": case(csv(NOISY).decode().encode("utf-16"), "not text in UTF-8"),
    "pickle": case(b"\x80\x04\x95\x0f\0\0\0\0\0\0\0]\x94(K\0e.", "not text", "pkl"),
    "pickled": case(as_npy(NOISY.astype(object), allow_pickle=True), "never executed", "npy"),
    "foreign code": pt_case({**CIFAR10N, "x": Foreign()}, "never executed", labels="worse_label"),
    "module": pt_case(torch.nn.Linear(2, 2), "cannot be read"),
    "cut npy": case(as_npy(NOISY)[:-9], "cannot be read", "npy"),
    "cut pt": case(as_pt(torch.tensor(LABELS))[:-200], "cannot be read", "pt"),
    "huge header": case(huge_npy(), "cannot be read", "npy"),
    "a large file": case(lambda: b"[" + b"1," * 700_000 + b"1]", "too many for 60", "json"),
    "zip bomb": case(zip_bomb, "50000000 bytes are too many", "pt"),
    "npz": case(saved(np.savez, NOISY), "cannot be read", "npz"),
    "no list": json_case([], "holds no labels"),
    "deep": case(b"[" * 400_000 + b"]" * 400_000, "cannot be read", "json"),
    "ragged": json_case([[1], [1, 2]] * 30, "which is no label"),
    "infinite": case(b"[" + b"1e999," * 59 + b"1]", "which is no label", "json"),
    "JSON lines": case(b'{"label": 1}\n' * 60, "Extra data", "jsonl"),
    "records": npy_case(np.zeros(COUNT, [("a", int), ("b", int)]), "no label"),
}


@pytest.mark.parametrize("wrong", REFUSALS)
def test_a_refusal(tmp_path, monkeypatch, wrong):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        read(tmp_path, *REFUSALS[wrong])
    _, words, suffix, *_ = REFUSALS[wrong]
    message = str(error.value)
    assert words in message, message
    assert message.startswith(f"--noise {tmp_path}/a.{suffix}: ") and message.isprintable()
    assert len(message) <= MAX_CHARACTERS and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("wrong", ["a mask", "another order", "all wrong", "too few to tell"])
def test_what_looks_like_no_noise_is_taken_on_demand(tmp_path, wrong):
    noisy, _ = read(tmp_path, *REFUSALS[wrong], any_labels=True)
    np.testing.assert_array_equal(noisy, np.load(tmp_path / "a.npy"))


def test_of_one_hot_labels_no_column_is_taken_on_demand(tmp_path):
    with pytest.raises(UserError, match=r"in each of its 10 lists.*--labels with one of 0, 1"):
        read(tmp_path, *REFUSALS["one-hot"], any_labels=True)


@pytest.mark.parametrize(("images", "wrong"), [(100, 30), (40, 8)])
def test_small_sets_that_can_be_told_from_chance(tmp_path, images, wrong):
    clean = np.arange(images) % 2
    noisy = np.where(np.arange(images) < wrong, 1 - clean, clean)
    source = make_source(clean, ["a", "b"])
    np.testing.assert_array_equal(read(tmp_path, *npy_case(noisy, source=source))[0], noisy)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_labels_in_another_order_are_refused(tmp_path, classes):
    random = np.random.default_rng(classes)
    clean = np.sort(random.integers(0, classes, 5000))
    names = [f"class {k}" for k in range(classes)]
    noisy = flip_labels(clean, "symmetric", 0.4, names, seed=0)
    source = make_source(clean, names)
    read(tmp_path, *npy_case(noisy, source=source))
    for seed in range(20):
        other = np.random.default_rng(seed).permutation(noisy)
        with pytest.raises(UserError, match=r"no better than chance.*--accept-chance-labels"):
            read(tmp_path, *npy_case(other, source=source))
