"""A run that is stopped at a chosen place goes on as if it had not been; what is refused."""

import os
import re
from pathlib import Path

import pytest
from helpers import SMALL_RUN, assert_equal_runs, folder_bytes, history, make_dataset

import train
from common import run_folder
from common.errors import UserError
from dataset.data_file import write_dataset
from training import checkpoint
from training import run as training_run

DISTILLED = Path("runs/small/dis1-small_cnn-seed0")
SLOW = pytest.mark.slow
COMPLETE = [*SMALL_RUN, "--dis=1", "--epochs=3"]  # the flags of that run of `study`
NETWORKS = {
    "small_cnn": ["--model=small_cnn"],
    "shake_resnet": ["--model=shake_resnet", "--depth=8", "--width=4"],
}


class Stop(KeyboardInterrupt):
    """Ctrl-C at a chosen place."""


def stop_at(patch, module, name, number, after=False):
    """Press Ctrl-C before the `number`-th call of a function, or after it."""
    original, calls = getattr(module, name), []

    def stopping(*args):
        calls.append(args)
        if len(calls) == number and not after:
            raise Stop
        result = original(*args)
        if len(calls) == number and after:
            raise Stop
        return result

    patch.setattr(module, name, stopping)


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory):
    """A folder with data/small.npz and a run of 3 epochs of each network, by the network's name."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_dataset(folder / "data/small.npz", make_dataset())
        for name, flags in NETWORKS.items():
            assert train.main([*SMALL_RUN, *flags, "--dis=1", "--epochs=3", f"--run={name}"]) == 0
    return folder


# Before an epoch's first byte is written, between its writes, and after the last: module, function,
# how many of its calls come before the first epoch and how many there are in an epoch.
PLACES = {
    "before the logits": (training_run, "append_logits", 0, 2),
    "between two files of logits": (training_run, "append_logits", 1, 2),
    "before the history": (run_folder, "append_history", 0, 1),
    "before the checkpoint": (checkpoint, "save", 1, 1),
    "after the checkpoint": (checkpoint, "save", 1, 1),
}


@pytest.mark.parametrize("network", ["shake_resnet", pytest.param("small_cnn", marks=SLOW)])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("epoch", [pytest.param(1, marks=SLOW), 2, pytest.param(3, marks=SLOW)])
def test_stopping_and_resuming_equals_never_having_stopped(
    workplace, whole_runs, script, network, place, epoch
):
    flags = [*SMALL_RUN, *NETWORKS[network], "--dis=1", "--epochs=3", "--run=stopped"]
    module, name, before, calls = PLACES[place]
    with pytest.MonkeyPatch.context() as patch:
        number = before + (epoch - 1) * calls + 1
        stop_at(patch, module, name, number, after=place.startswith("after"))
        status, _, err = script("train", *flags)
    assert status == 130 and "--resume" in err and err.count("\n") == 1
    stopped = Path("runs/small/stopped")
    done = epoch if place.startswith("after") else epoch - 1
    assert checkpoint.read(stopped, "cpu")["epoch"] == done
    assert script("train", *flags, "--resume")[0] == 0
    assert_equal_runs(stopped, whole_runs / "runs/small" / network, 3)


STARTS = [(run_folder, "remove_run"), (checkpoint, "save"), (run_folder, "write_sample_indices")]
STARTS += [(run_folder, "write_config")]


@pytest.mark.parametrize(
    "overwrite", [[], pytest.param(["--overwrite"], marks=SLOW)], ids=["new", "overwrite"]
)
@pytest.mark.parametrize("after", [False, pytest.param(True, marks=SLOW)], ids=["before", "after"])
@pytest.mark.parametrize(("module", "name"), STARTS, ids=[name for _, name in STARTS])
def test_a_run_that_is_stopped_while_it_starts(
    workplace, whole_runs, script, module, name, after, overwrite
):
    flags = [*SMALL_RUN, "--dis=1", "--epochs=3", "--run=stopped"]
    stopped = Path("runs/small/stopped")
    if overwrite:
        assert script("train", *SMALL_RUN, "--epochs=1", "--run=stopped")[0] == 0
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, module, name, 1, after)
        assert script("train", *flags, *overwrite)[0] == 130
    exists = (stopped / "config.json").exists()
    if exists and (module, name, after) == (run_folder, "remove_run", False):
        assert len(history(stopped)) == 1  # the run that was there is as before
        return
    # Whether the run exists says which of the two works.
    assert script("train", *flags, *["--resume"] * exists)[0] == 0
    assert_equal_runs(stopped, whole_runs / "runs/small/small_cnn", 3)


def test_resume_auto_starts_a_run_and_goes_on(workplace, whole_runs, script):
    flags = [*SMALL_RUN, "--dis=1", "--epochs=3", "--run=a", "--resume=auto"]
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, checkpoint, "save", 3)  # that of epoch 2
        status, out, _ = script("train", *flags)
    assert status == 130 and "from epoch 1" in out and len(history(Path("runs/small/a"))) == 2
    status, out, _ = script("train", *flags)
    assert status == 0 and "from epoch 2" in out
    assert_equal_runs(Path("runs/small/a"), whole_runs / "runs/small/small_cnn", 3)


def test_resuming_a_complete_run_changes_nothing(study, script):
    before = folder_bytes(DISTILLED)
    assert script("train", *COMPLETE, "--resume")[0] == 0
    assert folder_bytes(DISTILLED) == before


def test_resume_auto_of_a_complete_run_returns_at_once(study, script, monkeypatch):
    def forbidden(*args):
        raise AssertionError("the run is complete")

    for name in ("prepare", "train_epochs"):
        monkeypatch.setattr(training_run, name, forbidden)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in DISTILLED.iterdir()}
    status, out, err = script("train", *COMPLETE, "--resume=auto")
    assert (status, out, err) == (0, f"done: {DISTILLED}\n", "")
    after = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in DISTILLED.iterdir()}
    assert after == before


def test_existing_run_is_refused_and_overwrite_starts_again(study, script, refused):
    run = Path("runs/small/dis0-small_cnn-seed0")
    before = folder_bytes(run)
    flags = [*SMALL_RUN, "--epochs=2"]
    message = refused("train", *flags)
    assert "--resume" in message and "--overwrite" in message
    assert folder_bytes(run) == before
    (run / "frequency.json").write_text("{}")
    assert script("train", *flags, "--overwrite")[0] == 0
    assert len(history(run)) == 2 and not (run / "frequency.json").exists()


@pytest.mark.parametrize("resume", ["--resume", "--resume=auto"])
@pytest.mark.parametrize(
    "flag", ["--lr=0.1", "--batch-size=8", "--epochs=4", "--no-augment", "--sample-size=20"]
)
def test_resuming_with_other_settings_is_refused(study, refused, resume, flag):
    before = folder_bytes(DISTILLED)
    message = refused("train", *COMPLETE, resume, flag)
    name = flag.removeprefix("--").removeprefix("no-").split("=")[0].replace("-", "_")
    assert f"{name} = " in message
    assert folder_bytes(DISTILLED) == before


@pytest.mark.parametrize("resume", ["--resume", "--resume=auto"])
def test_resuming_on_other_data_is_refused(study, refused, resume):
    write_dataset(Path("data/small.npz"), make_dataset(seed=1))
    assert "another data set" in refused("train", *COMPLETE, resume)


@pytest.mark.parametrize("resume", ["--resume", "--resume=auto"])
def test_run_without_its_checkpoint_is_refused_and_kept(study, refused, resume):
    (DISTILLED / "checkpoint.pt").unlink()
    before = folder_bytes(DISTILLED)
    message = refused("train", *COMPLETE, resume)
    assert "checkpoint.pt" in message and "--overwrite" in message
    assert folder_bytes(DISTILLED) == before


@pytest.mark.parametrize("resume", ["--resume", "--resume=auto"])
def test_damaged_checkpoint_is_refused_and_the_offer_works(study, refused, script, resume):
    before = (DISTILLED / "logits.npy").read_bytes()
    path = DISTILLED / "checkpoint.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)
    message = refused("train", *COMPLETE, resume)
    assert "damaged" in message and "epoch 2" in message
    assert (DISTILLED / "logits.npy").read_bytes() == before
    source, target = re.search(r"rename (\S+) to (\S+), then --resume", message).groups()
    os.replace(DISTILLED / source, DISTILLED / target)
    assert script("train", *COMPLETE, resume)[0] == 0
    assert (DISTILLED / "logits.npy").read_bytes() == before


def test_history_shorter_than_the_checkpoint_is_refused(study, refused):
    lines = (DISTILLED / "history.jsonl").read_text().splitlines(keepends=True)
    (DISTILLED / "history.jsonl").write_text("".join(lines[:2]))
    before = folder_bytes(DISTILLED)
    message = refused("train", *COMPLETE, "--resume")
    assert "epoch 3" in message and "epoch 2" in message and "--overwrite" in message
    assert folder_bytes(DISTILLED).keys() == before.keys()
    with pytest.raises(UserError):
        run_folder.truncate_run(DISTILLED, 3)
