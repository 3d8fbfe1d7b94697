"""What several test files share: small data sets, flags of small runs, histories without times."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from common.run_folder import read_history
from dataset.data_file import DataSet

ROOT = Path(__file__).parent.parent
PROGRAMS = ROOT / "tests" / "programs"
# Wall-clock times are all that may differ between two equal runs.
TIMES = ("seconds", "images_per_second")
SMALL_RUN = ["--data", "data/small.npz", "--model", "small_cnn", "--device", "cpu"]
SMALL_RUN += ["--batch-size", "16", "--lr", "0.05"]


def environment() -> dict[str, str]:
    """The environment of a subprocess that imports the project from another folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def make_dataset(train=60, test=40, val=0, classes=4, size=8, seed=0) -> DataSet:
    """Random images of size x size pixels; a quarter of the labels is wrong by pair flip."""
    random = np.random.default_rng(seed)
    clean = np.arange(train) % classes
    noisy = clean.copy()
    noisy[: train // 4] = (noisy[: train // 4] + 1) % classes
    meta = {"source": "random", "title": "random", "noise": "pair", "rate_asked": 0.25}
    return DataSet(
        train_images=random.integers(0, 256, (train, size, size, 3), np.uint8),
        train_labels=noisy,
        clean_labels=clean,
        val_images=random.integers(0, 256, (val, size, size, 3), np.uint8),
        val_labels=np.arange(val) // 2 % classes,
        test_images=random.integers(0, 256, (test, size, size, 3), np.uint8),
        test_labels=np.arange(test) % classes,
        class_names=[f"class {label}" for label in range(classes)],
        meta={**meta, "rate_found": float(np.mean(noisy != clean)), "seed": seed},
    )


def history(run: Path) -> list[dict]:
    """A run's records without their times; none may be cut short."""
    records, note = read_history(run)
    assert note == ""
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


def panel_lines(axes) -> dict:
    """label -> y values of the lines of a panel."""
    return {line.get_label(): line.get_ydata() for line in axes.get_lines()}


def make_image_folder(folder, count=3, size=(9, 8), classes=("ant", "bee"), mode="RGB") -> Path:
    """A folder of images as generate.py reads it, `count` PNG files for each class and split."""
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for k in range(count):
                shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
                pixels = random.integers(0, 256, shape, np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{k}.png")
    return folder
