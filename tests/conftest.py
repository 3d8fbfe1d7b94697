"""Fixtures: a way to run a script in this process, a working folder, a small trained study."""

import importlib
import os
import shutil

# The networks here are so small that more threads only wait for each other. Set before torch loads,
# and for the scripts that the tests start.
os.environ["OMP_NUM_THREADS"] = "1"

import hypothesis
import pytest
from helpers import LEARNING_RUN, make_dataset, make_learnable_dataset

from dataset.data_file import write_dataset

# The same examples at every run, and no limit on their time: the machines are shared.
hypothesis.settings.register_profile("project", deadline=None, derandomize=True)
hypothesis.settings.load_profile("project")


def pytest_collection_modifyitems(items):
    """Skip the tests that need a CUDA device where there is none."""
    for item in items:
        if item.get_closest_marker("cuda"):
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


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
        assert status == 2, (out, err)
        assert err.count("\n") == 1 and err.endswith("\n"), err
        assert len(err) <= 350, err  # the message has 300 characters; the script's name is before
        assert "Traceback" not in err and out == ""
        return err

    return run


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def workplace(place):
    """A working folder with one small data set, data/small.npz."""
    write_dataset(place / "data/small.npz", make_dataset())
    return place


@pytest.fixture(scope="session")
def trained_study(tmp_path_factory):
    """A folder with data/small.npz and two runs that learn: runs/small/dis{0,1}-seed0."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_dataset(folder / "data/small.npz", make_learnable_dataset())
        train = importlib.import_module("train")
        for dis in (0, 1):
            assert train.main([*LEARNING_RUN, f"--dis={dis}", f"--run=dis{dis}-seed0"]) == 0
    return folder


@pytest.fixture
def study(trained_study, tmp_path, monkeypatch):
    """A copy of `trained_study` to work in and to damage."""
    folder = tmp_path / "study"
    shutil.copytree(trained_study, folder)
    monkeypatch.chdir(folder)
    return folder
