"""A run that is stopped or killed goes on as if it had not been; what is refused, what is kept."""

import errno
import os
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import (
    PROGRAMS,
    ROOT,
    SMALL_RUN,
    assert_equal_runs,
    folder_bytes,
    history,
    make_dataset,
    run_python,
    start_python,
)

import train
from common import run_folder
from dataset.data_file import write_dataset
from training import checkpoint
from training import run as training_run

SLOW = pytest.mark.slow
SHAKE = ["--model=shake_resnet", "--depth=8", "--width=4"]
FLAGS = [*SMALL_RUN, *SHAKE, "--epochs=3"]
VARIANTS = {
    "batch": ["--dis=1"],
    "previous-epoch": ["--dis=1", "--teacher=previous-epoch", "--soft"],
    "averaged": ["--dis=1", "--teacher=previous-epoch", "--ema-decay=0.9"],
    "elr": ["--loss=early-learning-regularization"],
    "small_cnn": ["--model=small_cnn", "--dis=0"],
}
STOPPED = Path("runs/small/stopped")
RUN = Path("runs/small/dis1-seed0")  # of the study
COMPLETE = [*SMALL_RUN, "--epochs=6", "--batch-size=32", "--lr=0.02", "--no-augment", "--dis=1"]
COMPLETE += ["--run=dis1-seed0"]


def stop_at(patch, module, name, number, after=False):
    """Press Ctrl-C before the `number`-th call of a function, or after it."""
    original, calls = getattr(module, name), []

    def stopping(*args):
        calls.append(args)
        if len(calls) == number and not after:
            raise KeyboardInterrupt
        result = original(*args)
        if len(calls) == number and after:
            raise KeyboardInterrupt
        return result

    patch.setattr(module, name, stopping)


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory):
    """A folder with data/small.npz, for runs that never stop."""
    folder = tmp_path_factory.mktemp("whole")
    write_dataset(folder / "data/small.npz", make_dataset(val=20))
    return folder


@pytest.fixture
def whole(whole_folder, tmp_path, monkeypatch):
    """The folder of a variant's run that never stopped, in a working folder without it."""

    def train_once(variant):
        run = whole_folder / "runs/small" / variant
        if not run.exists():
            monkeypatch.chdir(whole_folder)
            assert train.main([*FLAGS, *VARIANTS[variant], f"--run={variant}"]) == 0
            monkeypatch.chdir(tmp_path)
        return run

    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/small.npz").symlink_to(whole_folder / "data/small.npz")
    return train_once


# Before an epoch's first byte is written, between its writes, and after the last: module, function,
# how many of its calls come before the first epoch and how many there are in an epoch.
PLACES = {
    "before the outputs": (run_folder, "append_outputs", 0, 3),
    "between two files of outputs": (run_folder, "append_outputs", 1, 3),
    "before the history": (run_folder, "append_history", 0, 1),
    "before the checkpoint": (checkpoint, "save", 1, 1),
    "after the checkpoint": (checkpoint, "save", 1, 1),
}
STOPS = [
    (variant, place, epoch)
    for variant in VARIANTS
    for place in PLACES
    for epoch in (1, 2, 3)
    if variant == "averaged" or (epoch == 2 and place.endswith("checkpoint"))
]
QUICK = [("averaged", "before the checkpoint", 2), ("elr", "before the checkpoint", 2)]
STOPS = [pytest.param(*stop, marks=[] if stop in QUICK else [SLOW]) for stop in STOPS]


@pytest.mark.parametrize(("variant", "place", "epoch"), STOPS)
def test_stopping_and_resuming_equals_never_having_stopped(whole, script, variant, place, epoch):
    flags = [*FLAGS, *VARIANTS[variant], "--run=stopped"]
    module, name, before, calls = PLACES[place]
    with pytest.MonkeyPatch.context() as patch:
        number = before + (epoch - 1) * calls + 1
        stop_at(patch, module, name, number, after=place.startswith("after"))
        status, _, err = script("train", *flags)
    assert status == 130 and "--resume" in err and err.count("\n") == 1
    done = epoch if place.startswith("after") else epoch - 1
    assert checkpoint.read(STOPPED)["epoch"] == done
    status, out, _ = script("train", *flags, "--resume" if epoch == 2 else "--resume=auto")
    assert status == 0 and (f"from epoch {done + 1}\n" in out or done == 3)
    assert_equal_runs(STOPPED, whole(variant), 3)


# The steps of a start: before or after each of them it may end.
STARTS = [
    pytest.param(
        module,
        name,
        after,
        marks=[SLOW] * (name != "save"),
        id=f"{'after' if after else 'before'} {name}",
    )
    for module, name in (
        (checkpoint, "save"),
        (run_folder, "remove_files"),
        (run_folder, "write_sample_indices"),
        (run_folder, "write_config"),
    )
    for after in (False, True)
]


@pytest.mark.parametrize(
    "overwrite", [pytest.param(False, marks=SLOW), True], ids=["new", "overwrite"]
)
@pytest.mark.parametrize(("module", "name", "after"), STARTS)
def test_a_run_that_is_stopped_while_it_starts(whole, script, module, name, after, overwrite):
    flags = [*FLAGS, *VARIANTS["batch"], "--run=stopped"]
    if overwrite:
        others = ["--epochs=1", "--lr=0.1", "--sample-size=20"]
        assert script("train", *FLAGS, *others, "--run=stopped")[0] == 0
        run_folder.write_measure(STOPPED, run_folder.FREQUENCY, {})
        before = folder_bytes(STOPPED)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, module, name, 1, after)
        assert script("train", *flags, *["--overwrite"] * overwrite)[0] == 130
    if overwrite and (name, after) == ("save", False):
        before["lock"] = (STOPPED / "lock").read_bytes()
        assert folder_bytes(STOPPED) == before  # no byte of the old run is lost
        assert script("train", *flags, "--overwrite")[0] == 0
    else:
        # Whether the run exists says which of the two works.
        exists = (STOPPED / "config.json").exists()
        assert script("train", *flags, *["--resume"] * exists)[0] == 0
    assert_equal_runs(STOPPED, whole("batch"), 3)
    # Nothing is left of the old run.
    config, expected = (run_folder.read_config(run) for run in (STOPPED, whole("batch")))
    for name in ("run", "resume", "overwrite"):
        assert config["flags"].pop(name) is not None or name == "run"
        expected["flags"].pop(name)
    assert config == expected and not (STOPPED / "frequency.json").exists()


def test_overwrite_keeps_the_old_run_until_the_new_one_has_a_checkpoint(study, refused, patch_full):
    before = folder_bytes(RUN)
    message = refused("train", *COMPLETE, "--overwrite", "--seed=9")
    assert "checkpoint.pt: No space left on device; make room there" in message
    before["lock"] = (RUN / "lock").read_bytes()
    assert folder_bytes(RUN) == before


@pytest.fixture
def patch_full(monkeypatch):
    """A disk that takes no checkpoint."""

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)


def test_existing_run_is_refused_and_overwrite_starts_again(study, script, refused):
    before = folder_bytes(RUN)
    message = refused("train", *COMPLETE)
    assert "--resume" in message and "--overwrite" in message
    assert folder_bytes(RUN) == before
    (RUN / "frequency.json").write_text("{}")
    assert script("train", *COMPLETE, "--overwrite", "--epochs=2")[0] == 0
    assert len(history(RUN)) == 2 and not (RUN / "frequency.json").exists()


@pytest.mark.parametrize("flags", [[], ["--resume=auto"]])
def test_the_decision_to_start_is_taken_inside_the_lock(study, script, monkeypatch, flags):
    # Another process completes the run between this one's first look and its lock.
    away, locked = RUN.with_name("away"), run_folder.locked
    RUN.rename(away)

    @contextmanager
    def slowly_locked(run):
        Path(run).rmdir()
        away.rename(run)
        with locked(run):
            yield

    monkeypatch.setattr(run_folder, "locked", slowly_locked)
    before = {name: raw for name, raw in folder_bytes(away).items() if name != "lock"}
    status, out, err = script("train", *COMPLETE, *flags)
    if flags:
        assert (status, out) == (0, f"done: {RUN}\n")
    else:
        assert status == 2 and f"{RUN} exists; use --resume" in err
    assert {name: raw for name, raw in folder_bytes(RUN).items() if name != "lock"} == before


@pytest.mark.parametrize("resume", ["--resume", "--resume=auto"])
def test_resuming_a_complete_run_changes_nothing(study, script, monkeypatch, resume):
    def forbidden(*args):
        raise AssertionError("the run is complete")

    monkeypatch.setattr(training_run, "train_epoch", forbidden)
    before = folder_bytes(RUN)
    status, out, err = script("train", *COMPLETE, resume)
    assert (status, err) == (0, "") and out.endswith(f"done: {RUN}\n")
    before["lock"] = (RUN / "lock").read_bytes()
    assert folder_bytes(RUN) == before
    assert out == f"done: {RUN}\n" or resume == "--resume"


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[200] ^= 1
    path.write_bytes(raw)


def cut_history(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))


# What makes --resume impossible: flags, a file and what happens to it, words of the message.
REFUSED = [
    ("--lr=0.1", None, None, "lr = 0.02, not 0.1"),
    ("--batch-size=8", None, None, "batch_size = "),
    ("--epochs=7", None, None, "epochs = 6, not 7"),
    ("--augment", None, None, "augment = False"),
    ("--sample-size=20", None, None, "sample_size = None"),
    ("--ema-decay=0.5", None, None, "ema_decay = 0.0, not 0.5"),
    ("--teacher=previous-epoch", None, None, "teacher = batch"),
    ("", "checkpoint.pt", Path.unlink, "checkpoint.pt does not exist --overwrite"),
    ("", "checkpoint.pt", flip, "checkpoint.pt is damaged --overwrite"),
    ("", "history.jsonl", Path.unlink, "history.jsonl no epoch"),
    ("", "history.jsonl", cut_history, "history.jsonl ends at epoch 2 epoch 6; --run"),
    ("", "logits.npy", Path.unlink, "logits.npy no such file"),
    ("", "train_logits.npy", Path.unlink, "train_logits.npy no such file"),
    ("", "val_logits.npy", Path.unlink, "val_logits.npy no such file"),
    ("", "logits.npy", flip, "logits.npy epoch 1 sha256"),
]


@pytest.mark.parametrize("resume", ["--resume", "--resume=auto"])
@pytest.mark.parametrize(("flag", "file", "damage", "words"), REFUSED)
def test_what_cannot_go_on_is_refused_and_kept(study, script, resume, flag, file, damage, words):
    if damage:
        damage(RUN / file)
    before = folder_bytes(RUN)
    status, _, err = script("train", *COMPLETE, resume, *flag.split())
    assert status == 2 and err.count("\n") == 1
    assert all(word in err for word in words.split()), err
    before["lock"] = (RUN / "lock").read_bytes()
    assert folder_bytes(RUN) == before


def test_resuming_on_other_data_is_refused(study, refused):
    write_dataset(Path("data/small.npz"), make_dataset(seed=1))
    assert "another data set" in refused("train", *COMPLETE, "--resume")


@SLOW
def test_a_lost_file_of_outputs_never_shifts_the_epochs(whole, script, refused):
    flags = [*FLAGS, *VARIANTS["batch"], "--run=stopped"]
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, checkpoint, "save", 3)
        assert script("train", *flags)[0] == 130
    kept = (STOPPED / "logits.npy").read_bytes()
    (STOPPED / "logits.npy").unlink()
    status, _, err = script("train", *flags, "--resume")
    assert status == 2 and "logits.npy: no such file" in err
    (STOPPED / "logits.npy").write_bytes(kept)
    assert script("train", *flags, "--resume")[0] == 0
    assert_equal_runs(STOPPED, whole("batch"), 3)


# In processes of their own


@SLOW
def test_signal_in_the_middle_of_an_epoch(workplace):
    write_dataset(Path("data/small.npz"), make_dataset(train=400, test=40))
    flags = [*SMALL_RUN, "--epochs=4", "--dis=1", "--run=stopped"]
    process = start_python(ROOT / "train.py", *flags)
    while not process.stdout.readline().startswith("  1/4"):
        assert process.poll() is None
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.count("\n") == 1 and "--resume" in err
    assert 1 <= len(history(STOPPED)) < 4
    assert train.main([*flags, "--resume"]) == 0
    assert train.main([*flags, "--run=whole"]) == 0
    assert_equal_runs(STOPPED, STOPPED.with_name("whole"), 4)


@SLOW
@pytest.mark.parametrize("teacher", ["batch", "previous-epoch"])
def test_kill_9_at_40_random_moments(tmp_path, teacher):
    # Much to write and little to train, so that many kills hit a write.
    write_dataset(tmp_path / "data/small.npz", make_dataset(train=20, test=400))
    flags = [*FLAGS, "--dis=1", f"--teacher={teacher}"]
    flags += ["--ema-decay=0.9"] * (teacher == "previous-epoch")
    done = run_python(PROGRAMS / "train_killed.py", 40, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kills, *names = done.stdout.split()
    assert int(kills) >= 40 and names
    for name in names:
        run = tmp_path / "runs/small" / name
        assert_equal_runs(run, run.with_name("whole"), 3)
        assert not list(run.glob("*tmp"))


@SLOW
@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_disk_that_fills_up(workplace):
    write_dataset(Path("data/small.npz"), make_dataset(test=3000))
    flags = [*FLAGS, "--epochs=6", "--run=stopped"]
    # Four epochs of 48,000 bytes of outputs fit, the fifth does not.
    done = run_python(PROGRAMS / "train_with_file_limit.py", 220_000, *flags)
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "File too large" in done.stderr
    assert checkpoint.read(STOPPED)["epoch"] == len(history(STOPPED)) == 4
    assert train.main([*flags, "--resume"]) == 0
    assert train.main([*flags, "--run=whole"]) == 0
    assert_equal_runs(STOPPED, STOPPED.with_name("whole"), 6)


@SLOW
def test_second_process_is_refused(workplace, refused):
    write_dataset(Path("data/small.npz"), make_dataset(train=2000))
    flags = [*SMALL_RUN, "--epochs=50", "--run=stopped"]
    process = start_python(ROOT / "train.py", *flags)
    try:
        process.stdout.readline()
        for flag in ("--resume", "--resume=auto", "--overwrite"):
            message = refused("train", *flags, flag)
            assert f"process {process.pid}" in message and "--run" in message
    finally:
        process.kill()
        process.communicate()
    # The lock of a process that has ended stops nobody, though its file is still there.
    assert (STOPPED / "lock").exists()
    assert train.main([*flags, "--epochs=1", "--overwrite"]) == 0
