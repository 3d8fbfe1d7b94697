"""What several test files share: data sets, flags of small runs, what two equal runs have equal."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from common import run_folder
from dataset.data_file import DataSet

ROOT = Path(__file__).parent.parent
PROGRAMS = ROOT / "tests" / "programs"
SCRIPTS = ("collect_history", "frequency", "generate", "plot", "study", "train")
# Wall-clock times are all that may differ between two equal runs.
TIMES = ("seconds", "images_per_second")
SMALL_RUN = ["--data", "data/small.npz", "--model", "small_cnn", "--device", "cpu"]
SMALL_RUN += ["--batch-size", "16", "--lr", "0.05"]
SHAKE = ["--model=shake_resnet", "--depth=8", "--width=4"]
# The flags of the runs of the fixture `trained_study`, which adds --dis, --seed and --run.
LEARNING_RUN = [*SMALL_RUN, "--epochs=6", "--batch-size=32", "--lr=0.02", "--no-augment"]
LEARNING_EPOCHS = 6
CLASSES = 4  # of the data sets made here


def run_python(*words, **options) -> subprocess.CompletedProcess:
    """Run python with `words` in a process of its own; its output is captured."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), **options)


def start_python(*words, **options) -> subprocess.Popen:
    """Start python with `words`; its output can be read from the pipes stdout and stderr."""
    command = [sys.executable, *map(str, words)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment(), **{**streams, **options})


def environment(**changes) -> dict[str, str]:
    """The environment of a subprocess that imports the project from another folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """The content of each file of a folder, by its name."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class Bomb:
    """Unpickled, it makes the folder `executed`."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def npy(array, **options) -> bytes:
    """An .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def pt(content, **options) -> bytes:
    """A file of torch.save."""
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def huge_npy() -> bytes:
    """The header of an .npy file of 10^13 labels, and none."""
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (10000000000000,), }"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def make_dataset(train=60, test=40, val=0, size=8, seed=0) -> DataSet:
    """Random images of size x size pixels; a quarter of the labels is wrong by pair flip."""
    random = np.random.default_rng(seed)
    clean = np.arange(train) % CLASSES
    noisy = clean.copy()
    noisy[: train // 4] = (noisy[: train // 4] + 1) % CLASSES
    images = [random.integers(0, 256, (n, size, size, 3), np.uint8) for n in (train, val, test)]
    labels = noisy, np.arange(val) // 2 % CLASSES, np.arange(test) % CLASSES
    return as_dataset(images, labels, clean, "random", 0.25, seed)


def make_learnable_dataset(seed=0) -> DataSet:
    """Images of 8x8 pixels that a network can tell apart; 40% pair noise.

    Each class is a pattern of its own; by the noise of its pixels, an image can be memorized.
    """
    random = np.random.default_rng(seed)
    patterns = np.random.default_rng(0).uniform(70, 185, (CLASSES, 8, 8, 3))
    images, cleans = [], []
    for count in (160, 40, 80):  # training, held-out and test images
        clean = random.permutation(np.arange(count) % CLASSES)
        noise = random.normal(0, 45, (count, 8, 8, 3))
        images.append((patterns[clean] + noise).round().clip(0, 255).astype(np.uint8))
        cleans.append(clean)
    labels = [clean.copy() for clean in cleans]
    for noisy in labels[:2]:
        wrong = random.permutation(len(noisy))[: round(0.4 * len(noisy))]
        noisy[wrong] = (noisy[wrong] + 1) % CLASSES
    return as_dataset(images, labels, cleans[0], "patterns", 0.4, seed)


def as_dataset(images, labels, clean, name, rate, seed) -> DataSet:
    """A data set of the images and labels of its three parts: train, val and test."""
    (train, val, test), (noisy, val_labels, test_labels) = images, labels
    names = [f"class {label}" for label in range(CLASSES)]
    meta = {"source": name, "noise": "pair", "rate_asked": rate, "seed": seed}
    meta["rate_found"] = float(np.mean(noisy != clean))
    return DataSet(train, noisy, clean, val, val_labels, test, test_labels, names, meta)


def make_image_folder(folder, count=3, size=(9, 8), classes=("ant", "bee")) -> Path:
    """A folder of images as generate.py reads it, `count` PNG files for each class and split."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for k in range(count):
                pixels = random.integers(0, 256, (size[1], size[0], 3), np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{k}.png")
    return folder


def history(run: Path) -> list[dict]:
    """A run's records without their times; none may be cut short."""
    records, note = run_folder.read_history(run)
    assert note == ""
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


def write_epochs(run: Path, records: list[dict], outputs: dict[str, np.ndarray]) -> None:
    """Append epochs as train.py does: their records, and outputs (epochs, n, C) by file name."""
    for k, record in enumerate(records):
        digests = {name: run_folder.digest(values[k]) for name, values in outputs.items()}
        for name, values in outputs.items():
            run_folder.append_outputs(run / name, values[k], record["epoch"])
        run_folder.append_history(run, {**record, "sha256": digests})


def assert_equal_runs(one: Path, other: Path, epochs: int) -> None:
    """Two runs are equal bit for bit: history without times, outputs, checkpoint."""
    from training import checkpoint

    assert history(one) == history(other) and len(history(one)) == epochs
    names = [name for name in run_folder.LOGITS if (one / name).exists()]
    assert len(names) >= 2
    for name in (*names, "train_indices.npy"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    a, b = checkpoint.read(one), checkpoint.read(other)
    assert a["epoch"] == epochs
    assert equal(a, b)


def equal(a, b) -> bool:
    """Whether two checkpoints, or parts of them, have the same tensors and values."""
    import torch

    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b
