"""dataset/labels.py, label_file.py: label files of all layouts, the right labels or the refusal."""

import json

import helpers
import numpy as np
import pytest
import torch

from common.command_line import MAX_CHARACTERS, UserError
from dataset.labels import read_labels
from dataset.noise import flip_labels
from dataset.sources import Source

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
COUNT = 60
INDEX = np.arange(COUNT)
CLEAN = np.random.default_rng(0).permutation(INDEX % 10)
NOISY = np.where(INDEX % 3 == 0, (CLEAN + 3) % 10, CLEAN)
OTHER = np.where(INDEX % 4 == 0, (CLEAN + 1) % 10, CLEAN)
SWAPPED = np.concatenate((CLEAN[[1, 0]], CLEAN[2:]))  # every count stays the same
MIXED = np.random.default_rng(3).permutation(COUNT)
PART = INDEX[5:50]
NAMES = [CLASSES[k] for k in NOISY]
LOOSE = {"clean_label": CLEAN, "worse_label": NOISY, "aggre_label": OTHER}  # CIFAR-10N
BLANK = ["vertical bars", *CLASSES[1:]]


def make_source(clean=CLEAN, classes=CLASSES, train_files=None, test_files=None) -> Source:
    images = np.zeros((len(clean), 1, 1, 3), np.uint8)
    folder = "/" in "".join(train_files or [])
    return Source(
        images, clean, images[:3], clean[:3], list(classes), train_files, test_files, folder
    )


def make_folder(classes=CLASSES, name="{}.png", unique=False) -> Source:
    """A folder: class by class, file by file in the order of the names as text.

    12 files of each class with the same numbers, or 6 with a number for each file.
    """
    files, labels = [], []
    for label, folder in enumerate(classes):
        numbers = range(6 * label, 6 * label + 6) if unique else range(12)
        for file in sorted(map(name.format, numbers)):
            files.append(f"train/{folder}/{file}")
            labels.append(label)
    return make_source(np.array(labels), classes, files, ["test/cat/t1.png", "test/dog/0.png"])


def last_parts(source: Source, parts: int) -> list[str]:
    return ["/".join(file.split("/")[-parts:]) for file in source.train_files]


def noise_of(source: Source) -> np.ndarray:
    """A third of the labels is wrong, and within a class some are and some are not."""
    if source.train_labels is CLEAN:
        return NOISY
    classes = [str(k) for k in range(len(source.class_names))]
    return flip_labels(source.train_labels, "symmetric", 1 / 3, classes, seed=1)


PLAIN, PLAIN_BLANK = make_source(), make_source(classes=BLANK)
FOLDER = make_folder()  # 10.png stands before 2.png
UNIQUE = make_folder(name="{:03}.jpg", unique=True)
WORDS = make_folder(name="img_{}.jpg", unique=True)  # img_10 stands before img_6
NAMED_TEST = make_folder(classes=["cat", "dog", "test"])
NUMBERED = make_folder(classes=["3", "7", "11"])
FOLDER_BLANK = make_folder(classes=BLANK)
OFFICIAL = make_source(train_files=[f"{CLASSES[k]}_s_{i:06}.png" for i, k in enumerate(CLEAN)])
OPENOOD = [f"x/{CLASSES[y]}/{np.sum(CLEAN[:k] == y) + 1:04}.png" for k, y in enumerate(CLEAN)]
IN_FOLDER, IN_UNIQUE, IN_WORDS = map(noise_of, (FOLDER, UNIQUE, WORDS))
PATHS = FOLDER.train_files
NUMBERS = [int(path.split("/")[-1].split(".")[0]) for path in PATHS]
NATURAL = np.lexsort((NUMBERS, -FOLDER.train_labels)).tolist()  # 2 before 10, last class first
BY_FILE = [(PATHS[k], int(IN_FOLDER[k])) for k in NATURAL]
IN_BLANK = [BLANK[k] for k in noise_of(FOLDER_BLANK)]
IN_NUMBERED = [NUMBERED.class_names[k] for k in noise_of(NUMBERED)]
TWO_CLASSES = make_source(np.arange(20) % 2, ["a", "b"])
FOUR_WRONG = np.where(np.arange(20) < 4, 1, 0) ^ TWO_CLASSES.train_labels
TWENTY = make_source(CLEAN[:20])
HUNDRED = make_source(np.arange(200) % 100, map(str, range(100)))
ESCAPES = "\x1b]0;title\x07\x1b[31m"


def with_gap(values, gap="") -> list:
    return [gap if k == 17 else value for k, value in enumerate(values)]


# --- a file: its content, words of what is said, its suffix, the data set, --labels ---


def raw(words, content, suffix="csv", source=PLAIN, labels=None) -> tuple:
    return content, words, suffix, source, labels


def csv(words, *columns, header=None, delimiter=",", order=None, **options) -> tuple:
    rows = list(zip(*columns, strict=True))
    rows = rows if order is None else [rows[k] for k in order]
    lines = [] if header is None else [header]
    lines += [delimiter.join(map(str, row)) for row in rows]
    return raw(words, "\n".join(lines).encode() + b"\n", **options)


def js(words, content, **options) -> tuple:
    text = json.dumps(content, default=lambda array: array.tolist())
    return raw(words, text.encode(), "json", **options)


def npy(words, array, pickled=False, **options) -> tuple:
    return raw(words, helpers.npy(array, allow_pickle=pickled), "npy", **options)


def pt(words, content, zipped=True, **options) -> tuple:
    content = helpers.pt(content, _use_new_zipfile_serialization=zipped)
    return raw(words, content, "pt", **options)


OLD_PT = pt("", LOOSE, zipped=False)[0]
POSITION = "placed by position"
LAYOUTS = {
    # lists
    "JSON list": js(POSITION, NOISY),
    "JSON with a byte order mark": raw("", b"\xef\xbb\xbf" + js("", NOISY)[0], "json"),
    "JSON with numbers beside": js("", {"rate": 0.3, "seed": 1, "labels": NOISY}),
    "npy": npy(POSITION, NOISY.astype(np.uint8)),
    "npy big endian (N, 1)": npy("", NOISY[:, None].astype(">i4")),
    "npy of whole floats": npy("", NOISY.astype(np.float32)),
    "tensor": pt(POSITION, torch.from_numpy(NOISY)),
    "CIFAR-10N": pt("not used: aggre_label", LOOSE, labels="worse_label"),
    "CIFAR-10N, old format": raw("", OLD_PT, "pt", labels="worse_label"),
    "CIFAR-10N, numpy 1": raw(
        "", OLD_PT.replace(b"numpy._core.", b"numpy.core."), "pt", labels="worse_label"
    ),
    "np.savetxt": csv(POSITION, [f"{k:.18e}" for k in NOISY]),
    # which column
    "a column without a name": csv(POSITION, NOISY),
    "a column": csv(POSITION, NOISY, header="noisy"),
    "class names without a header": csv("", NAMES),
    "clean and noisy": csv("label_noisy of", CLEAN, NOISY, header="label,label_noisy"),
    "clean and noisy names": csv("noisy_label of", CLEAN, NAMES, header="label,noisy_label"),
    "clean and whole floats": csv("n of", CLEAN, [f"{k}.0" for k in NOISY], header="label,n"),
    "noisy and clean": csv("label of", NOISY, CLEAN, header="label,gt"),
    "noisy and clean by name": csv("", NOISY, CLEAN, header="label,gt", labels="label"),
    "label, asked for": csv("label of", NOISY, OTHER, header="label,other", labels="label"),
    "three without a header": csv("not used: 0, 1", CLEAN, OTHER, NOISY, labels="2"),
    "annotators": csv("a1 of", INDEX, NOISY, OTHER, header="image,a1,a2", labels="a1"),
    "a score, flags, a mask": csv(
        "not used: s, is_noisy, mask",
        *(NOISY, np.linspace(0.1, 0.9, COUNT), NOISY != CLEAN, 1 * (NOISY != CLEAN)),
        header="n,s,is_noisy,mask",
    ),
    "a trailing comma": csv(f"{POSITION}: the file", NOISY, [""] * COUNT, header="n,"),
    "semicolons": csv("by index", INDEX, NOISY, header="i;n", delimiter=";"),
    "tabs and a class with a blank": csv(
        "by index", INDEX, [BLANK[k] for k in NOISY], delimiter="\t", source=PLAIN_BLANK
    ),
    "quotes, BOM, Windows lines": raw(
        "", b"\xef\xbb\xbf" + "\r\n".join(['"noisy"', *(f'"{k}"' for k in NOISY)]).encode()
    ),
    # which image: indices
    "JSON by index": js("by index (file)", {str(k): NOISY[k] for k in MIXED}),
    "pandas, shuffled": csv("by index", INDEX, CLEAN, NOISY, header=",label,n", order=MIXED),
    "pandas Series": csv("by index ('')", INDEX, NOISY, header=",0"),
    "pandas header 0": csv(POSITION, NOISY, header="0"),
    "ids from 1": csv("index (id, from 1)", INDEX + 1, NOISY, header="id,label", order=MIXED),
    "ids that are the files' numbers": csv("by index", INDEX, IN_UNIQUE, source=UNIQUE),
    "positions of images whose names have other numbers": csv(
        "index (index_from_0)", INDEX, IN_WORDS, header="index_from_0,n", order=MIXED, source=WORDS
    ),
    "export of a part": js("(index_from_0)", {"index_from_0": PART, "label": NOISY[PART]}),
    # which image: names
    "a folder by position": csv(
        "so they count as train/airplane/0.png, train/airplane/1.p", IN_FOLDER, source=FOLDER
    ),
    "JSON by path": js("by file name", {f"/d/{file}": y for file, y in BY_FILE}, source=FOLDER),
    "JSON records": js(
        "file name (path)", [{"path": file, "noisy": y} for file, y in BY_FILE], source=FOLDER
    ),
    "natural order": csv(
        "name (file)", *zip(*BY_FILE, strict=True), header="file,n", source=FOLDER
    ),
    "Windows paths": csv(
        "by file name", [f"C:\\x\\{p}".replace("/", "\\") for p in PATHS], IN_FOLDER, source=FOLDER
    ),
    "commas and a class with a blank": csv(
        "by file name", FOLDER_BLANK.train_files, IN_BLANK, order=NATURAL, source=FOLDER_BLANK
    ),
    "unique file names": csv(
        "by file name", last_parts(UNIQUE, 1), IN_UNIQUE, order=MIXED, source=UNIQUE
    ),
    "rows of test images": csv(
        "4 rows of test images left out",
        [*PATHS, "test/cat/t1.png", "test/cat/1.png", "a\\test\\dog\\5.png", "val/dog/3.png"],
        [*IN_FOLDER, 3, "", -1, 5],
        source=FOLDER,
    ),
    "a class called test": csv(
        "by file name", last_parts(NAMED_TEST, 2), noise_of(NAMED_TEST), source=NAMED_TEST
    ),
    "Noisy Imagenette": csv(
        "by file name (path)",
        PATHS,
        *([CLASSES[k] for k in y] for y in (FOLDER.train_labels, IN_FOLDER, 9 - IN_FOLDER)),
        ["False"] * len(PATHS),
        header="path,noisy_labels_0,noisy_labels_1,noisy_labels_5,is_valid",
        order=NATURAL,
        source=FOLDER,
        labels="noisy_labels_1",
    ),
    "classes named by other numbers": csv(
        "by file name", NUMBERED.train_files, IN_NUMBERED, source=NUMBERED
    ),
    "confident learning": js(
        "by file name", {f"/c/train/x/{k}_{CLASSES[CLEAN[k]]}.png": NOISY[k] for k in MIXED}
    ),
    "CIFAR's own names": csv(
        "file name", OFFICIAL.train_files, NOISY, order=MIXED, source=OFFICIAL
    ),
    "OpenOOD": csv("by file name (0)", OPENOOD, NOISY, delimiter=" ", order=MIXED, source=OFFICIAL),
}


def read(tmp_path, content, words, suffix, source, labels, **options):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(content)
    return read_labels(path, labels, source, **options)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout(tmp_path, layout):
    _, words, _, source, _ = LAYOUTS[layout]
    chosen = PART if "part" in layout else np.arange(len(source.train_labels))
    noisy, printed = read(tmp_path, *LAYOUTS[layout], chosen=chosen)
    np.testing.assert_array_equal(noisy[chosen], noise_of(source)[chosen])
    assert noisy.dtype == np.int64 and words in printed and "\n" not in printed


# --- refusals ---


NO_IMAGE, CHANCE = "but no training image has that name", "no better than chance"
REFUSALS = {
    # a gap, what is no label, a length
    "a gap": csv("n, line 19, is empty", CLEAN, with_gap(NOISY), header="label,n"),
    "an annotator's gap": csv(
        "a1, line 19, is empty", INDEX, with_gap(NOISY), OTHER, header="i,a1,a2", labels="a1"
    ),
    "two annotators, one with many gaps": csv(
        "one of a1, a2", INDEX, np.where(INDEX % 3, "", NOISY), OTHER, header="i,a1,a2"
    ),
    "null": js("entry 17, is empty", with_gap(NOISY.tolist(), None)),
    "NaN": npy("entry 17, has 'nan', not a label", with_gap(NOISY, np.nan)),
    "one half": csv("line 18, has '0.5'", with_gap(NOISY, 0.5)),
    "another spelling": csv(
        "n, line 2, has '", CLEAN, [name.upper() for name in NAMES], header="label,n"
    ),
    "another spelling beside label": csv(
        "noisy_label, line 2, has '", OTHER, [n.upper() for n in NAMES], header="label,noisy_label"
    ),
    "classes from 1": js("(from 1 to 10)", NOISY + 1),
    "infinite": raw("not a label", b"[" + b"1e999," * 59 + b"1]", "json"),
    "booleans": js("has 'True', not a label", [True] * COUNT),
    "one-hot": npy("entry 0, has '[0, 0, 0,", np.eye(10, dtype=int)[NOISY]),
    "records": npy("not a label", np.zeros(COUNT, [("a", int), ("b", int)])),
    "too few": js("59 labels, the data set 60", NOISY[:-1]),
    "a line too short": raw("line 3 has 1 cells", b"label,noisy\n0,1\n1\n"),
    # which column
    "no name": pt("--labels with one of worse_label, aggre_label", LOOSE),
    "a name for one list": npy("only its list; correct --labels", NOISY, labels="worse_label"),
    "the clean labels": pt("no noisy labels 'clean_label'", LOOSE, labels="clean_label"),
    "only clean labels": js("no noisy labels", {"clean_label": CLEAN}),
    "clean labels without a name": npy("--noise none", CLEAN),
    "label and another": csv("rename the column", NOISY, OTHER, header="label,other"),
    "a doubled name": csv("'y' is given twice", CLEAN, NOISY, header="y,y"),
    "clean labels in another order": pt(
        "in 2 of 60 places", {**LOOSE, "clean_label": SWAPPED}, labels="worse_label"
    ),
    "label in another order": csv(
        "in 2 of 60 places", SWAPPED, NOISY, header="label,noisy", labels="noisy"
    ),
    "a wrong name beside label": csv(
        "no noisy labels 'noise'", SWAPPED, NOISY, header="label,noisy", labels="noise"
    ),
    "test labels beside": js("test has 9 labels", {"y": NOISY, "test": NOISY[:9]}, labels="y"),
    # labels of another kind, or by chance
    "a mask": npy("as if it were a mask", 1 * (NOISY != CLEAN)),
    "a mask by name": csv("as if it were", NOISY, CLEAN % 2, header="n,mask", labels="mask"),
    "coarse labels": pt("20 superclasses", {"coarse": HUNDRED.train_labels // 5}, source=HUNDRED),
    "another order": npy(CHANCE, np.random.default_rng(1).permutation(NOISY)),
    "all wrong": npy(f"0 of 60 labels agree with the clean ones, {CHANCE}", (CLEAN + 1) % 10),
    "too few to tell": npy(
        "16 of 20 labels agree with the clean ones, too few to tell it from permuted labels "
        "(p = 0.012)",
        FOUR_WRONG,
        source=TWO_CLASSES,
    ),
    "classes named by numbers, read in two ways": npy(
        "class names or class numbers", np.arange(36) % 2 + 1, source=make_folder(["1", "2", "3"])
    ),
    # which image: names
    "a name that no image has": csv(
        f"f, line 121, has 'train/truck/99.png', {NO_IMAGE}",
        [*PATHS[:-1], "train/truck/99.png"],
        IN_FOLDER,
        header="f,n",
        source=FOLDER,
    ),
    "an image without a label": csv(
        "1 training images, first train/airplane/0.png", PATHS[1:], IN_FOLDER[1:], source=FOLDER
    ),
    "a name given twice": csv(
        "line 120, has 'train/airplane/0.png', for the second time",
        [*PATHS[:-1], PATHS[0]],
        IN_FOLDER,
        source=FOLDER,
    ),
    "labels of the test images alone": csv(
        "120 training images", [p.replace("train", "test") for p in PATHS], IN_FOLDER, source=FOLDER
    ),
    "a name twice in JSON": raw("'a' is given twice", b'{"a": 1, "b": 2, "a": 3}', "json"),
    "names that are not unique": csv(NO_IMAGE, last_parts(FOLDER, 1), IN_FOLDER, source=FOLDER),
    "an empty name": csv("line 18, is empty", with_gap(PATHS), IN_FOLDER, source=FOLDER),
    "a name given twice in a small set": csv(
        NO_IMAGE, [f"n{k % 17}" for k in range(20)], CLEAN[:20], source=TWENTY
    ),
    "names of another data set": js(NO_IMAGE, {f"p{k}": k % 10 for k in range(60)}),
    "two columns of names": csv("differ on images", PATHS, PATHS[::-1], IN_FOLDER, source=FOLDER),
    "confident learning of other classes": js(
        NO_IMAGE, {f"{k}_{CLASSES[SWAPPED[k]]}.png": NOISY[k] for k in INDEX}
    ),
    # which image: indices
    "two indices": csv("differ on images", INDEX, MIXED, NOISY, header=",sample,noisy"),
    "half of the ids, twice": csv("k, line 3, has '0', for the", INDEX // 2, NOISY, header="k,n"),
    "an index given twice": csv(
        "id, line 61, has '3', for the second", [*INDEX[:-1], 3], NOISY, header="id,n"
    ),
    "an index with a gap": csv("which does not count 60", [*INDEX[:-1], 60], NOISY),
    "a part, from 0 or from 1": csv("name it index_from_0", PART, NOISY[PART], header="index,n"),
    "numbers that files have in another order": csv("or be the", INDEX, IN_WORDS, source=WORDS),
    "ids from 1 of files from 0": csv("or be the", INDEX + 1, IN_UNIQUE, source=UNIQUE),
    # files that cannot be read, or are an attack
    "escape sequences": csv(r"\x1b]0;title\x07", NOISY, OTHER, header=f"a,{ESCAPES}"),
    "escapes as names": csv(r"\x1b]0;title\x07", [f"{ESCAPES}{k}" for k in INDEX], NOISY),
    "UTF-16": raw("text in UTF-8", "\n".join(map(str, NOISY)).encode("utf-16")),
    "pickle": raw("text in UTF-8", b"\x80\x04\x95\x0f\0\0\0\0\0\0\0]\x94(K\0e.", "pkl"),
    "pickled": npy("never executed", NOISY.astype(object), pickled=True),
    "foreign code": pt("never executed", {**LOOSE, "x": helpers.Bomb()}, labels="worse_label"),
    "module": pt("cannot be read", torch.nn.Linear(2, 2)),
    "cut npy": raw("cannot be read", npy("", NOISY)[0][:-9], "npy"),
    "cut pt": raw("cannot be read", pt("", torch.from_numpy(NOISY))[0][:-200], "pt"),
    "huge header": raw("cannot be read", helpers.huge_npy(), "npy"),
    "a large file": raw("too many for 60", b"[" + b"1," * 700_000 + b"1]", "json"),
    "no list": js("holds no labels", []),
    "deep": raw("cannot be read", b"[" * 400_000 + b"]" * 400_000, "json"),
    "JSON lines": raw("Extra data", b'{"label": 1}\n' * 60, "jsonl"),
}
for name in ("json", "csv", "npy", "pt"):
    REFUSALS[f"empty {name}"] = raw("cannot be read", b"", name)
    REFUSALS[f"bytes {name}"] = raw("cannot be read", bytes(range(256)) * 20, name)


@pytest.mark.parametrize("wrong", REFUSALS)
def test_a_refusal(place, wrong):
    with pytest.raises(UserError) as error:
        read(place, *REFUSALS[wrong])
    _, words, suffix, *_ = REFUSALS[wrong]
    message = str(error.value)
    assert words in message, message
    assert message.startswith(f"--noise {place}/a.{suffix}: ") and message.isprintable()
    assert len(message) <= MAX_CHARACTERS and len(list(place.iterdir())) == 1


@pytest.mark.parametrize("wrong", ["a mask", "another order", "all wrong", "too few to tell"])
def test_what_looks_like_no_noise_is_taken_on_demand(tmp_path, wrong):
    noisy, _ = read(tmp_path, *REFUSALS[wrong], any_labels=True)
    np.testing.assert_array_equal(noisy, np.load(tmp_path / "a.npy"))


@pytest.mark.parametrize(("images", "wrong"), [(100, 30), (40, 8)])
def test_small_sets_that_can_be_told_from_chance(tmp_path, images, wrong):
    clean = np.arange(images) % 2
    noisy = np.where(np.arange(images) < wrong, 1 - clean, clean)
    source = make_source(clean, ["a", "b"])
    np.testing.assert_array_equal(read(tmp_path, *npy("", noisy, source=source))[0], noisy)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_labels_in_another_order_are_refused(tmp_path, classes):
    random = np.random.default_rng(classes)
    clean = np.sort(random.integers(0, classes, 5000))
    names = [f"class {k}" for k in range(classes)]
    noisy = flip_labels(clean, "symmetric", 0.4, names, seed=0)
    source = make_source(clean, names)
    read(tmp_path, *npy("", noisy, source=source))
    for seed in range(20):
        other = np.random.default_rng(seed).permutation(noisy)
        with pytest.raises(UserError, match=r"no better than chance.*--accept-chance-labels"):
            read(tmp_path, *npy("", other, source=source))
