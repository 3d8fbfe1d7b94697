"""What several test files share: a way to run a script in this process, and small real inputs."""

import importlib
import json
import os
import shutil
from pathlib import Path

# The networks here are so small that more threads only wait for each other. Set before torch loads,
# and for the scripts that the tests start.
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import numpy as np
import pytest
from PIL import Image

import data
import runs

# The same examples at every run, and no limit on their time: the machines are shared.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")


@pytest.fixture
def script(capsys):
    """Run a script's main: script("train", *argv) -> (exit status, stdout, stderr)."""

    def run(name, *argv):
        capsys.readouterr()
        try:
            status = importlib.import_module(name).main([str(word) for word in argv])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def refused(script):
    """Run a script that must refuse its input: exit status 2, one line, which is returned."""

    def run(name, *argv):
        status, out, err = script(name, *argv)
        assert status == 2
        assert err.count("\n") == 1 and err.endswith("\n"), err
        assert "Traceback" not in err and out == ""
        return err

    return run


def make_dataset(train=60, test=40, val=0, classes=4, size=8, seed=0):
    """A data set of random images, a quarter of its labels wrong by pair flip."""
    random = np.random.default_rng(seed)
    clean = np.arange(train) % classes
    given = clean.copy()
    given[: train // 4] = (given[: train // 4] + 1) % classes
    meta = {"source": "random", "title": "random", "noise": "pair", "rate_asked": 0.25}
    return data.DataSet(
        random.integers(0, 256, (train, size, size, 3), np.uint8),
        given,
        clean,
        random.integers(0, 256, (val, size, size, 3), np.uint8),
        np.arange(val) // 2 % classes,
        random.integers(0, 256, (test, size, size, 3), np.uint8),
        np.arange(test) % classes,
        [f"class {label}" for label in range(classes)],
        {**meta, "rate_found": float(np.mean(given != clean)), "seed": seed},
    )


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty working folder with one small data set, data/small.npz."""
    monkeypatch.chdir(tmp_path)
    data.write_dataset(tmp_path / "data/small.npz", make_dataset())
    return tmp_path


SMALL_RUN = ["--data", "data/small.npz", "--model", "small_cnn", "--device", "cpu"]
SMALL_RUN += ["--batch-size", "16", "--lr", "0.05"]


# Wall-clock times are all that may differ between two equal runs.
TIMES = ("seconds", "images_per_second")


def history(run):
    """A run's records without their times; none may be cut short."""
    records, note = runs.read_history(run)
    assert note == ""
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with data/small.npz and four trained runs: two losses, two seeds, three epochs."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        data.write_dataset(folder / "data/small.npz", make_dataset())
        train = importlib.import_module("train")
        for dis in (0, 1):
            for seed in (0, 1):
                flags = [f"--dis={dis}", f"--seed={seed}", "--epochs=3"]
                assert train.main([*SMALL_RUN, *flags]) == 0
    return folder


@pytest.fixture
def study(trained, tmp_path, monkeypatch):
    """A copy of `trained` to work in and to damage."""
    folder = tmp_path / "study"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def collected(study, script):
    """The history.json of the four runs of `study`, with frequencies at two deltas."""
    assert script("frequency", "--delta", 100, 400)[0] == 0
    assert script("collect_history")[0] == 0
    yield json.loads(Path("history.json").read_text())
    import matplotlib.pyplot as plt

    plt.close("all")


def lines(axes):
    """label -> y values of the lines of a panel that span its epochs."""
    return {line.get_label(): line.get_ydata() for line in axes.get_lines()}


def make_folder(folder, count=3, size=(9, 8), classes=("ant", "bee"), mode="RGB"):
    random = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in classes:
            (folder / part / name).mkdir(parents=True)
            for k in range(count):
                shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
                pixels = random.integers(0, 256, shape, np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{k}.png")
    return folder
