"""What several test files share: small data sets, flags of small runs, histories without times."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from common.run_folder import LOGITS, read_history
from dataset.data_file import DataSet

ROOT = Path(__file__).parent.parent
PROGRAMS = ROOT / "tests" / "programs"
SCRIPTS = sorted(path.stem for path in ROOT.glob("*.py") if path.stem != "losses")
# Wall-clock times are all that may differ between two equal runs.
TIMES = ("seconds", "images_per_second")
SMALL_RUN = ["--data", "data/small.npz", "--model", "small_cnn", "--device", "cpu"]
SMALL_RUN += ["--batch-size", "16", "--lr", "0.05"]


def environment() -> dict[str, str]:
    """The environment of a subprocess that imports the project from another folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run_python(*words, **options) -> subprocess.CompletedProcess:
    """Run python with `words` in a process of its own; its output is captured as text."""
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), **options)


def start_python(*words, **options) -> subprocess.Popen:
    """Start python with `words`; its output can be read from the pipes stdout and stderr."""
    command = [sys.executable, *map(str, words)]
    pipe = subprocess.PIPE
    streams = {"stdout": pipe, "stderr": pipe, "text": True}
    return subprocess.Popen(command, env=environment(), **streams, **options)


def folder_bytes(folder: Path) -> dict[str, bytes]:
    """The content of each file of a folder, by its name."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


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


def assert_equal_runs(one: Path, other: Path, epochs: int) -> None:
    """Two runs are equal bit for bit: history without times, logits, weights and momentum."""
    import torch

    from training import checkpoint

    assert history(one) == history(other) and len(history(one)) == epochs
    for name in LOGITS:
        assert (one / name).read_bytes() == (other / name).read_bytes()
    a, b = (checkpoint.read(run, "cpu") for run in (one, other))
    assert a["epoch"] == b["epoch"] == epochs and a["model"].keys() == b["model"].keys()
    for key, tensor in a["model"].items():
        assert torch.equal(tensor, b["model"][key])
    momenta, others = a["optimizer"]["state"], b["optimizer"]["state"]
    assert momenta and momenta.keys() == others.keys()
    for key, state in momenta.items():
        assert torch.equal(state["momentum_buffer"], others[key]["momentum_buffer"])


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
