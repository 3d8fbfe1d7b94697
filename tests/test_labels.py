"""dataset/labels.py: every layout of a label file, with its right labels or its refusal."""

import io
import json
import os

import numpy as np
import pytest
import torch

from common.errors import MAX_CHARACTERS, UserError
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
    return Source(images, clean, images[:3], clean[:3], list(classes), train_files, test_files)


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
    stems = [(-k, int(f.split("/")[-1].split(".")[0])) for k, f in enumerate_classes(source)]
    return sorted(range(len(stems)), key=stems.__getitem__)


def enumerate_classes(source):
    return zip(source.train_labels.tolist(), source.train_files, strict=True)


MIXED = np.random.default_rng(3).permutation(COUNT)
NOISY_FOLDER, NOISY_UNIQUE, NOISY_NUMBERED = map(noise_of, (FOLDER, UNIQUE, NUMBERED))
CLASS_NAMES = [CLASSES[k] for k in NOISY]
PATHS = names_of(FOLDER)
FOLDER_ROWS = natural(FOLDER)
CIFAR10N = {"clean_label": CLEAN, "worse_label": NOISY, "aggre_label": OTHER}
IN_CLASS = [int(np.sum(CLEAN[:k] == CLEAN[k])) for k in range(COUNT)]
FLOATS = [f"{k}.0" for k in NOISY]

# Layout: the source, the file's name, its content, --labels, words of what is printed.
BY_POSITION = "placed by position"
LAYOUTS = {
    "JSON list": (PLAIN, "a.json", as_json(NOISY), None, BY_POSITION),
    "JSON with a byte order mark": (PLAIN, "a.json", b"\xef\xbb\xbf" + as_json(NOISY), None, ""),
    "JSON of whole floats": (PLAIN, "a.json", as_json(NOISY.astype(float)), None, ""),
    "JSON of digits as text": (PLAIN, "a.json", as_json(list(map(str, NOISY))), None, ""),
    "JSON of class names": (PLAIN, "a.json", as_json(CLASS_NAMES), None, ""),
    "JSON (N, 1)": (PLAIN, "a.json", as_json(NOISY[:, None]), None, ""),
    "JSON (1, N)": (PLAIN, "a.json", as_json(NOISY[None]), None, ""),
    "JSON pairs of file and label": (
        *(FOLDER, "a.json", as_json(list(zip(PATHS, NOISY_FOLDER.tolist(), strict=True))), None),
        "by file name (0)",
    ),
    "JSON with numbers beside": (
        *(PLAIN, "a.json", as_json({"noise_rate": 0.3, "seed": 1, "labels": NOISY}), None, ""),
    ),
    "JSON by index": (
        *(PLAIN, "a.json", as_json({str(k): int(NOISY[k]) for k in MIXED}), None),
        "by index (file)",
    ),
    "JSON by path of a folder": (
        *(FOLDER, "a.json"),
        as_json({f"/data/{PATHS[k]}": int(NOISY_FOLDER[k]) for k in FOLDER_ROWS}),
        *(None, "by file name"),
    ),
    "JSON records": (
        *(FOLDER, "a.json"),
        as_json([{"path": PATHS[k], "noisy": int(NOISY_FOLDER[k])} for k in FOLDER_ROWS]),
        *(None, "by file name (path)"),
    ),
    "JSON of records by name": (
        *(FOLDER, "a.json"),
        as_json({PATHS[k]: {"noisy": int(NOISY_FOLDER[k]), "who": "x"} for k in FOLDER_ROWS}),
        *(None, "not used: who"),
    ),
    "JSON of test labels beside": (
        *(PLAIN, "a.json", as_json({"train": NOISY, "test": NOISY[:9]}), "train", "not used: test"),
    ),
    "JSON in a .txt": (PLAIN, "a.txt", as_json(NOISY), None, ""),
    "confident learning": (
        *(PLAIN, "a.json"),
        as_json(
            {
                f"/c/train/{CLASSES[CLEAN[k]]}/{k}_{CLASSES[CLEAN[k]]}.png": int(NOISY[k])
                for k in MIXED
            }
        ),
        *(None, "by file name"),
    ),
    "confident learning of a folder": (
        *(UNIQUE, "a.json"),
        as_json(
            {
                file.replace("/", "\\"): int(label)
                for file, label in reversed(
                    list(zip(UNIQUE.train_files, NOISY_UNIQUE, strict=True))
                )
            }
        ),
        *(None, "by file name"),
    ),
    "npy": (PLAIN, "a.npy", as_npy(NOISY.astype(np.uint8)), None, BY_POSITION),
    "npy big endian (N, 1)": (PLAIN, "a.npy", as_npy(NOISY[:, None].astype(">i4")), None, ""),
    "npy of whole floats": (PLAIN, "a.npy", as_npy(NOISY.astype(np.float32)), None, ""),
    "npy of class names": (PLAIN, "a.npy", as_npy(np.array(CLASS_NAMES)), None, ""),
    "tensor": (PLAIN, "a.pt", as_pt(torch.from_numpy(NOISY)), None, BY_POSITION),
    "list of scalars": (PLAIN, "a.pth", as_pt(list(NOISY)), None, ""),
    "CIFAR-10N": (PLAIN, "a.pt", as_pt(CIFAR10N), "worse_label", "not used: aggre_label"),
    "CIFAR-10N, old format": (
        *(PLAIN, "a.pt", as_pt(CIFAR10N, _use_new_zipfile_serialization=False), "worse_label", ""),
    ),
    "CIFAR-10N, numpy 1": (
        *(PLAIN, "a.pt"),
        as_pt(CIFAR10N, _use_new_zipfile_serialization=False).replace(
            b"numpy._core.", b"numpy.core."
        ),
        *("worse_label", ""),
    ),
    "tensor with numbers beside": (
        *(PLAIN, "a.pt", as_pt({"noise_rate": 0.3, "labels": torch.from_numpy(NOISY)}), None, ""),
    ),
    "labels by integer": (
        PLAIN,
        "a.pt",
        as_pt({int(k): int(NOISY[k]) for k in MIXED}),
        None,
        "index",
    ),
    "a column without a name": (PLAIN, "a.csv", csv(NOISY), None, BY_POSITION),
    "a column": (PLAIN, "a.csv", csv(NOISY, header="noisy"), None, BY_POSITION),
    "a column of class names": (PLAIN, "a.csv", csv(CLASS_NAMES, header="noisy"), None, ""),
    "class names without a header": (PLAIN, "a.csv", csv(CLASS_NAMES), None, ""),
    "one line": (PLAIN, "a.csv", csv(*NOISY[:, None]), None, ""),
    "one line of blanks": (PLAIN, "a.txt", text_of(NOISY[None], "%d"), None, ""),
    "np.savetxt": (PLAIN, "a.txt", text_of(NOISY), None, ""),
    "clean and noisy": (PLAIN, "a.csv", csv(CLEAN, NOISY, header="label,label_noisy"), None, ""),
    "clean and noisy floats": (PLAIN, "a.csv", csv(CLEAN, FLOATS, header="label,noisy"), None, ""),
    "clean and noisy names": (
        *(
            PLAIN,
            "a.csv",
            csv(CLEAN, CLASS_NAMES, header="label,noisy_label"),
            None,
            "noisy_label of",
        ),
    ),
    "noisy and clean": (
        PLAIN,
        "a.csv",
        csv(NOISY, CLEAN, header="label,gt"),
        None,
        "label of a.csv",
    ),
    "noisy and clean by name": (PLAIN, "a.csv", csv(NOISY, CLEAN, header="label,gt"), "label", ""),
    "label, asked for, beside noise": (
        *(PLAIN, "a.csv", csv(NOISY, OTHER, header="label,other"), "label", "label of a.csv"),
    ),
    "pandas": (
        PLAIN,
        "a.csv",
        csv(INDEX, CLEAN, NOISY, header=",label,noisy"),
        None,
        "by index ()",
    ),
    "pandas, shuffled": (
        *(
            PLAIN,
            "a.csv",
            csv(INDEX, CLEAN, NOISY, header=",label,noisy", order=MIXED),
            None,
            "index",
        ),
    ),
    "pandas, index reset after shuffling": (
        *(PLAIN, "a.csv", csv(INDEX, MIXED, NOISY[MIXED], header=",sample,noisy"), None),
        "by index (sample)",
    ),
    "pandas Series": (PLAIN, "a.csv", csv(INDEX, NOISY, header=",0"), None, "by index ()"),
    "pandas header 0": (PLAIN, "a.csv", csv(NOISY, header="0"), None, BY_POSITION),
    "ids from 1": (
        *(PLAIN, "a.csv", csv(INDEX + 1, NOISY, header="id,label", order=MIXED), None),
        "by index (id, from 1)",
    ),
    "index without a header": (
        PLAIN,
        "a.csv",
        csv(INDEX, NOISY, order=MIXED),
        None,
        "by index (0)",
    ),
    "three without a header": (PLAIN, "a.csv", csv(CLEAN, OTHER, NOISY), "2", "not used: 0, 1"),
    "semicolons": (PLAIN, "a.csv", csv(INDEX, NOISY, header="i;n", delimiter=";"), None, "index"),
    "tabs and a class name with a blank": (
        make_source(classes=["vertical bars", *CLASSES[1:]]),
        *("a.tsv", csv(INDEX, ["vertical bars" if k == 0 else k for k in NOISY], delimiter="\t")),
        *(None, "by index"),
    ),
    "quotes, BOM, Windows lines": (
        *(PLAIN, "a.csv"),
        b"\xef\xbb\xbf" + csv([f'"{k}"' for k in NOISY], header='"noisy"').replace(b"\n", b"\r\n"),
        *(None, ""),
    ),
    "two annotators": (
        PLAIN,
        "a.csv",
        csv(INDEX, NOISY, OTHER, header="image,ann1,ann2"),
        "ann1",
        "",
    ),
    "a score beside": (
        *(PLAIN, "a.csv", csv(NOISY, np.linspace(0.1, 0.9, COUNT), header="noisy,score"), None),
        "not used: score",
    ),
    "a mask beside": (
        *(PLAIN, "a.csv", csv(NOISY, (NOISY != CLEAN).astype(int), header="noisy,is_noisy"), None),
        "not used: is_noisy",
    ),
    "a path in natural order": (
        *(FOLDER, "a.csv", csv(PATHS, NOISY_FOLDER, header="file,noisy", order=FOLDER_ROWS), None),
        "by file name (file)",
    ),
    "a path of OpenOOD": (
        *(FOLDER, "a.txt"),
        csv([f"cifar10/{p}" for p in PATHS], NOISY_FOLDER, delimiter=" ", order=FOLDER_ROWS),
        *(None, "by file name (0)"),
    ),
    "class and file": (
        *(
            FOLDER,
            "a.csv",
            csv(names_of(FOLDER, 2), NOISY_FOLDER, order=FOLDER_ROWS),
            None,
            "file name",
        ),
    ),
    "unique file names": (
        *(UNIQUE, "a.csv", csv(names_of(UNIQUE, 1), NOISY_UNIQUE, order=MIXED), None, "file name"),
    ),
    "unique names of another suffix": (
        *(UNIQUE, "a.csv"),
        csv([f"x/{n[:-4]}.png" for n in names_of(UNIQUE, 1)], NOISY_UNIQUE, order=MIXED),
        *(None, "file name"),
    ),
    "ids that are the files' names": (
        *(UNIQUE, "a.csv", csv(INDEX, NOISY_UNIQUE, header="id,noisy", order=MIXED), None),
        "as the files' names",
    ),
    "rows of test images": (
        *(FOLDER, "a.csv"),
        csv(
            [*PATHS, "test/cat/t1.png", "test/dog/0.png"],
            [*NOISY_FOLDER, 3, 5],
            header="path,noisy",
        ),
        *(None, "2 rows of test images left out"),
    ),
    "Noisy Imagenette": (
        *(FOLDER, "a.csv"),
        csv(
            *(PATHS, *([CLASSES[k] for k in y] for y in (FOLDER.train_labels, NOISY_FOLDER))),
            *([CLASSES[(k + 1) % 10] for k in FOLDER.train_labels], ["False"] * len(PATHS)),
            header="path,noisy_labels_0,noisy_labels_1,noisy_labels_5,is_valid",
            order=FOLDER_ROWS,
        ),
        *("noisy_labels_1", "by file name (path)"),
    ),
    "CIFAR's own names": (
        *(
            OFFICIAL,
            "a.csv",
            csv(OFFICIAL.train_files, NOISY, header="file,noisy", order=MIXED),
            None,
        ),
        "by file name (file)",
    ),
    "CIFAR by number": (
        *(
            OFFICIAL,
            "a.csv",
            csv([f"{k:05}.png" for k in INDEX], NOISY, order=MIXED),
            None,
            "file name",
        ),
    ),
    "OpenOOD's numbers for CIFAR": (
        *(OFFICIAL, "a.txt"),
        csv(
            [
                f"cifar10/train/{CLASSES[k]}/{n + 1:04}.png"
                for k, n in zip(CLEAN, IN_CLASS, strict=True)
            ],
            *(NOISY,),
            delimiter=" ",
            order=MIXED,
        ),
        *(None, "numbered within each class"),
    ),
    "classes named by other numbers": (
        *(NUMBERED, "a.csv"),
        csv(names_of(NUMBERED), np.array([3, 7, 11])[NOISY_NUMBERED], header="file,noisy"),
        *(None, "file name"),
    ),
    "export of a part": (
        *(PLAIN, "a.json", as_json({"index": INDEX[5:50], "label": NOISY[5:50]}), None, "by index"),
    ),
}


def read(tmp_path, source, name, content, labels=None, **options):
    path = tmp_path / name
    path.write_bytes(content() if callable(content) else content)
    return read_labels(path, labels, source, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout(tmp_path, layout):
    source, name, content, labels, words = LAYOUTS[layout]
    chosen = INDEX[5:50] if layout == "export of a part" else None
    noisy, printed = read(tmp_path, source, name, content, labels, chosen=chosen)
    chosen = np.arange(len(noisy)) if chosen is None else chosen
    np.testing.assert_array_equal(noisy[chosen], noise_of(source)[chosen])
    assert noisy.dtype == np.int64 and words in printed and "\n" not in printed


def test_there_are_layouts_enough():
    assert len(LAYOUTS) >= 50 and len(REFUSALS) >= 80


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
    import zipfile

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\0" * 50_000_000)
    return buffer.getvalue()


def with_gap(labels, row=17, gap="") -> list:
    return [gap if k == row else label for k, label in enumerate(labels)]


LONG = "x" * 5000
LABELS = NOISY.tolist()
COARSE = CLEAN // 5
ESCAPES = "\x1b]0;title\x07\x1b[31m"
RAW = bytes(range(256)) * 20
SHUFFLED = np.random.default_rng(1).permutation(NOISY)
SMALL = make_source(CLEAN[:20], CLASSES)
# Case: the source, the file's name, its content, --labels, words of the refusal.
REFUSALS = {
    # gaps, and what is no label
    "a gap": (
        PLAIN,
        "a.csv",
        csv(CLEAN, with_gap(NOISY), header="label,noisy_label"),
        None,
        "noisy_label, line 19, is empty",
    ),
    "a gap of an annotator": (
        PLAIN,
        "a.csv",
        csv(INDEX, with_gap(NOISY), OTHER, header="i,a1,a2"),
        "a1",
        "a1, line 19, is empty",
    ),
    "two annotators, one with a gap": (
        PLAIN,
        "a.csv",
        csv(INDEX, with_gap(NOISY), OTHER, header="i,a1,a2"),
        None,
        "it holds 2 lists of labels; use --labels with one of a1, a2",
    ),
    "a gap of a single column": (PLAIN, "a.csv", csv(with_gap(NOISY)), None, "line 18 is empty"),
    "null": (PLAIN, "a.json", as_json(with_gap(LABELS, gap=None)), None, "entry 17, is empty"),
    "NaN": (
        PLAIN,
        "a.npy",
        as_npy(np.array(with_gap(NOISY, gap=np.nan), float)),
        None,
        "entry 17, has 'nan', which is no label",
    ),
    "no annotation, -1": (
        PLAIN,
        "a.npy",
        as_npy(np.array(with_gap(NOISY, gap=-1))),
        None,
        "has '-1', which is no label (from -1 to 9)",
    ),
    "one half": (PLAIN, "a.csv", csv(with_gap(NOISY, gap=0.5)), None, "line 18, has '0.5'"),
    "another spelling": (
        PLAIN,
        "a.csv",
        csv(CLEAN, [CLASSES[k].upper() for k in NOISY], header="label,noisy_label"),
        None,
        "noisy_label, line 2, has '",
    ),
    "classes from 1": (PLAIN, "a.json", as_json(NOISY + 1), None, "(from 1 to 10)"),
    "to 99": (PLAIN, "a.json", as_json([99, *LABELS[1:]]), None, "entry 0, has '99'"),
    "large": (PLAIN, "a.json", as_json([10**25, *LABELS[1:]]), None, "which is no label"),
    "floats": (PLAIN, "a.npy", as_npy(np.linspace(0.1, 8.9, COUNT)), None, "which is no label"),
    "booleans": (PLAIN, "a.json", as_json([True] * COUNT), None, "has 'True', which is no label"),
    "one-hot": (PLAIN, "a.npy", as_npy(np.eye(10, dtype=int)[NOISY]), None, "as if it were a mask"),
    "probabilities": (PLAIN, "a.npy", as_npy(np.full((COUNT, 10), 0.1)), None, "which is no label"),
    # lengths
    "too few": (PLAIN, "a.json", as_json(NOISY[:-1]), None, "59 labels, the data set 60"),
    "too few of a name": (
        PLAIN,
        "a.pt",
        as_pt({**CIFAR10N, "worse_label": NOISY[:5]}),
        "worse_label",
        "worse_label has 5 labels",
    ),
    "too few in all": (PLAIN, "a.pt", as_pt({"a": NOISY[:5], "b": NOISY[:5]}), None, "5 labels"),
    "a line too short": (PLAIN, "a.csv", b"label,noisy\n0,1\n1\n", None, "line 3 has 1 cells"),
    # which column
    "no name": (
        PLAIN,
        "a.pt",
        as_pt(CIFAR10N),
        None,
        "--labels with one of worse_label, aggre_label",
    ),
    "no such name": (PLAIN, "a.pt", as_pt(CIFAR10N), "best", "no noisy labels 'best' in it"),
    "the clean labels": (PLAIN, "a.pt", as_pt(CIFAR10N), "clean_label", "no noisy labels"),
    "the index": (PLAIN, "a.csv", csv(INDEX, NOISY, header="i,noisy"), "i", "one of noisy"),
    "only clean labels": (
        PLAIN,
        "a.json",
        as_json({"clean_label": CLEAN}),
        None,
        "no noisy labels",
    ),
    "clean labels without a name": (PLAIN, "a.npy", as_npy(CLEAN), None, "--noise none"),
    "label and another": (
        PLAIN,
        "a.csv",
        csv(NOISY, OTHER, header="label,other"),
        None,
        "--labels label uses it",
    ),
    "a doubled name": (
        PLAIN,
        "a.csv",
        csv(CLEAN, NOISY, header="y,y"),
        None,
        "columns are named 'y'",
    ),
    "clean labels in another order": (
        PLAIN,
        "a.pt",
        as_pt({**CIFAR10N, "clean_label": SWAPPED}),
        "worse_label",
        "differ from the data set's in 2 of 60 places",
    ),
    "label in another order": (
        PLAIN,
        "a.csv",
        csv(SWAPPED, NOISY, header="label,noisy"),
        "noisy",
        "in 2 of 60 places",
    ),
    # labels of another kind, or by chance
    "a mask": (PLAIN, "a.npy", as_npy((NOISY != CLEAN).astype(int)), None, "as if it were a mask"),
    "a mask by name": (
        PLAIN,
        "a.csv",
        csv(NOISY, CLEAN % 2, header="noisy,mask"),
        "mask",
        "a mask",
    ),
    "coarse labels": (
        make_source(np.arange(200) % 100, map(str, range(100))),
        "a.pt",
        as_pt({"noisy_coarse_label": np.arange(200) % 100 // 5}),
        "noisy_coarse_label",
        "20 superclasses",
    ),
    "another order": (PLAIN, "a.npy", as_npy(SHUFFLED), None, "no better than chance"),
    "all wrong": (
        PLAIN,
        "a.npy",
        as_npy((CLEAN + 1) % 10),
        None,
        "0 of 60 labels agree with the clean ones, no better",
    ),
    "too few to tell": (
        make_source(np.arange(20) % 2, ["a", "b"]),
        "a.npy",
        as_npy(np.where(np.arange(20) < 4, 1 - np.arange(20) % 2, np.arange(20) % 2)),
        None,
        "16 of 20 labels agree with the clean ones, too few to tell it from "
        "permuted labels (p = 0.012)",
    ),
    # names
    "a name that no image has": (
        FOLDER,
        "a.csv",
        csv([*PATHS[:-1], "train/truck/99.png"], NOISY_FOLDER, header="f,n"),
        None,
        "f, line 121, has 'train/truck/99.png', but no training image has that name",
    ),
    "an image without a label": (
        FOLDER,
        "a.csv",
        csv(PATHS[1:], NOISY_FOLDER[1:]),
        None,
        "no label for 1 training images, first train/airplane/0.png",
    ),
    "a name given twice": (
        FOLDER,
        "a.csv",
        csv([*PATHS[:-1], PATHS[0]], NOISY_FOLDER),
        None,
        "line 120, has 'train/airplane/0.png' for the second time",
    ),
    "a name twice in JSON": (
        FOLDER,
        "a.json",
        b'{"a.png": 1, "b.png": 2, "a.png": 3}',
        None,
        "'a.png' is given 2 times",
    ),
    "names that are not unique": (
        FOLDER,
        "a.csv",
        csv(names_of(FOLDER, 1), NOISY_FOLDER),
        None,
        "no training image has",
    ),
    "an empty name": (
        FOLDER,
        "a.csv",
        csv(with_gap(PATHS), NOISY_FOLDER),
        None,
        "line 18, is empty",
    ),
    "names of another data set": (
        PLAIN,
        "a.json",
        as_json({f"p{k}.png": k % 10 for k in range(60)}),
        None,
        "no training image has that name",
    ),
    "two columns of names": (
        UNIQUE,
        "a.csv",
        csv(names_of(UNIQUE), names_of(UNIQUE)[::-1], NOISY_UNIQUE),
        None,
        "name other images",
    ),
    "confident learning of other classes": (
        PLAIN,
        "a.json",
        as_json({f"{k}_{CLASSES[SWAPPED[k]]}.png": LABELS[k] for k in range(60)}),
        None,
        "differ from the data set's in 2 of 60",
    ),
    "confident learning from 1": (
        PLAIN,
        "a.json",
        as_json({f"{k + 1}_{CLASSES[CLEAN[k]]}.png": LABELS[k] for k in range(60)}),
        None,
        "goes from 1 to 60",
    ),
    # indices
    "an index with a gap": (
        PLAIN,
        "a.csv",
        csv([*INDEX[:-1], 60], NOISY, header="id,n"),
        None,
        "goes from 0 to 60, which does not count 60",
    ),
    "an index given twice": (
        PLAIN,
        "a.csv",
        csv([*INDEX[:-1], 3], NOISY, header="id,n"),
        None,
        "id, line 61, has '3' for the second time",
    ),
    "an index of a part, from 0 or 1": (
        PLAIN,
        "a.csv",
        csv(INDEX[5:50], NOISY[5:50], header="k,n"),
        None,
        "may count from 0 or from 1",
    ),
    "ids that no file has": (
        UNIQUE,
        "a.csv",
        csv(INDEX + 1, NOISY_UNIQUE, header="id,n"),
        None,
        "id, line 61, has '60', but no image has that name",
    ),
    "classes named by numbers, read in two ways": (
        make_folder(classes=["1", "2", "3"]),
        "a.npy",
        as_npy(np.arange(36) % 2 + 1),
        None,
        "class names or class numbers",
    ),
    # files that cannot be read
    "escape sequences": (PLAIN, "a.csv", csv([ESCAPES] * COUNT, NOISY, OTHER), None, "--labels"),
    "escape sequences as a name": (
        PLAIN,
        "a.csv",
        csv(NOISY, OTHER, header=f"a,{ESCAPES}"),
        None,
        r"\x1b]0;title\x07",
    ),
    **{
        f"empty{suffix}": (PLAIN, f"a{suffix}", b"", None, "it is empty")
        for suffix in (".json", ".csv", ".npy", ".pt", "")
    },
    **{
        f"bytes{suffix}": (PLAIN, f"a{suffix}", RAW, None, "cannot be read")
        for suffix in (".json", ".csv", ".npy", ".pt", ".pkl")
    },
    "blank": (PLAIN, "a.json", b" \n", None, "cannot be read"),
    "UTF-16": (PLAIN, "a.csv", csv(NOISY).decode().encode("utf-16"), None, "not text in UTF-8"),
    "pickle": (
        PLAIN,
        "a.pkl",
        b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00]\x94(K\x00e.",
        None,
        "not text",
    ),
    "pickled npy": (
        PLAIN,
        "a.npy",
        as_npy(NOISY.astype(object), allow_pickle=True),
        None,
        "pickled",
    ),
    "foreign code": (
        PLAIN,
        "a.pt",
        as_pt({**CIFAR10N, "x": Foreign()}),
        "worse_label",
        "never executed",
    ),
    "set": (PLAIN, "a.pt", as_pt({1, 2, 3}), None, "holds no labels"),
    "module": (PLAIN, "a.pt", as_pt(torch.nn.Linear(2, 2)), None, "cannot be read"),
    "cut json": (PLAIN, "a.json", as_json(NOISY)[:-9], None, "cannot be read"),
    "cut npy": (PLAIN, "a.npy", as_npy(NOISY)[:-9], None, "cannot be read"),
    "cut pt": (PLAIN, "a.pt", as_pt(torch.tensor(LABELS))[:-200], None, "cannot be read"),
    "huge header": (PLAIN, "a.npy", huge_npy(), None, "cannot be read"),
    "a large file": (
        PLAIN,
        "a.json",
        lambda: b"[" + b"1," * 700_000 + b"1]",
        None,
        "too many for 60",
    ),
    "zip bomb": (PLAIN, "a.pt", zip_bomb, None, "50000000 bytes are too many"),
    "npz": (PLAIN, "a.npz", saved(np.savez, NOISY), None, "cannot be read"),
    "no list": (PLAIN, "a.json", b"[]", None, "holds no labels"),
    "no object": (PLAIN, "a.json", b"{}", None, "holds no labels"),
    "a number": (PLAIN, "a.json", b"7", None, "1 labels"),
    "null alone": (PLAIN, "a.json", b"null", None, "--noise"),
    "deep": (PLAIN, "a.json", b"[" * 400_000 + b"]" * 400_000, None, "cannot be read"),
    "deep object": (
        PLAIN,
        "a.json",
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        None,
        "cannot be read",
    ),
    "ragged": (PLAIN, "a.json", as_json([[1], [1, 2]] * 30), None, "which is no label"),
    "infinite": (PLAIN, "a.json", b"[" + b"1e999," * 59 + b"1]", None, "which is no label"),
    "long strings": (PLAIN, "a.json", as_json([LONG] * COUNT), None, "which is no label"),
    "digits": (PLAIN, "a.json", b"[" + b"9" * 10_000 + b"]", None, "cannot be read"),
    "long names": (
        PLAIN,
        "a.json",
        as_json({LONG + str(k): LABELS for k in range(30)}),
        None,
        "30 lists",
    ),
    "object of objects": (PLAIN, "a.json", as_json({"noisy": {"a": LABELS}}), None, "--noise"),
    "JSON lines": (PLAIN, "a.jsonl", b'{"label": 1}\n' * 60, None, "Extra data"),
    "records": (
        PLAIN,
        "a.npy",
        as_npy(np.zeros(COUNT, [("a", int), ("b", int)])),
        None,
        "no labels",
    ),
    "dates": (PLAIN, "a.npy", as_npy(np.zeros(COUNT, "M8[s]")), None, "no labels"),
    "a long cell": (PLAIN, "a.csv", (LONG * 100 + "\n1\n").encode(), None, "cannot be read"),
    "an open quote": (PLAIN, "a.csv", b'"1\n2\n' + b"3\n" * COUNT, None, "--noise"),
    "zeros": (PLAIN, "a.csv", b"\0" * 5000, None, "--noise"),
    "many columns": (
        PLAIN,
        "a.csv",
        (",".join(f"c{k}" for k in range(2000)) + "\n1\n").encode(),
        None,
        "2000",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    source, name, content, labels, words = REFUSALS[case]
    with pytest.raises(UserError) as error:
        read(tmp_path, source, name, content, labels)
    message = str(error.value)
    assert words in message, message
    assert message.startswith(f"--noise {tmp_path / name}: ") and len(message) <= MAX_CHARACTERS
    assert message.isprintable() and [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("case", ["a mask", "another order", "all wrong", "too few to tell"])
def test_what_looks_like_no_noise_is_taken_on_demand(tmp_path, case):
    source, name, content, labels, _ = REFUSALS[case]
    noisy, _ = read(tmp_path, source, name, content, labels, any_labels=True)
    np.testing.assert_array_equal(noisy, np.load(tmp_path / name))


@pytest.mark.parametrize(("images", "wrong"), [(100, 30), (40, 8)])
def test_small_sets_that_can_be_told_from_chance(tmp_path, images, wrong):
    clean = np.arange(images) % 2
    noisy = np.where(np.arange(images) < wrong, 1 - clean, clean)
    source = make_source(clean, ["a", "b"])
    np.testing.assert_array_equal(read(tmp_path, source, "a.npy", as_npy(noisy))[0], noisy)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_labels_in_another_order_are_refused(tmp_path, classes):
    random = np.random.default_rng(classes)
    clean = np.sort(random.integers(0, classes, 5000))
    names = [f"class {k}" for k in range(classes)]
    noisy = flip_labels(clean, "symmetric", 0.4, names, seed=0)
    source = make_source(clean, names)
    read(tmp_path, source, "a.npy", as_npy(noisy))
    for seed in range(20):
        other = np.random.default_rng(seed).permutation(noisy)
        with pytest.raises(UserError, match=r"no better than chance .*--accept-chance-labels"):
            read(tmp_path, source, "a.npy", as_npy(other))
