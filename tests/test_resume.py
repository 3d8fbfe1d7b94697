"""A run that is stopped or killed goes on as if it had not been; what is refused, what is kept."""

from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import (
    LEARNING_RUN,
    PROGRAMS,
    SMALL_RUN,
    assert_equal_runs,
    folder_bytes,
    history,
    make_dataset,
    run_python,
)

import train
from common import run_folder
from dataset.data_file import write_dataset
from training import checkpoint

SLOW = pytest.mark.slow
SHAKE = ["--model=shake_resnet", "--depth=8", "--width=4"]
FLAGS = [*SMALL_RUN, *SHAKE, "--epochs=3"]
VARIANTS = {
    "batch": ["--dis=1"],
    "averaged": ["--dis=1", "--teacher=previous-epoch", "--soft", "--ema-decay=0.9"],
    "elr": ["--loss=early-learning-regularization"],
}
STOPPED = Path("runs/small/stopped")
RUN = Path("runs/small/dis1-seed0")  # of the study
COMPLETE = [*LEARNING_RUN, "--dis=1", "--run=dis1-seed0"]


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


# Where an epoch's writing is stopped: module, function, how many of its calls come before the first
# epoch and how many there are in an epoch.
PLACES = {
    "before the outputs": (run_folder, "append_outputs", 0, 3),
    "between two files of outputs": (run_folder, "append_outputs", 1, 3),
    "before the history": (run_folder, "append_history", 0, 1),
    "before the checkpoint": (checkpoint, "save", 1, 1),
    "after the checkpoint": (checkpoint, "save", 1, 1),
}
STOPS = [
    ("elr", "before the checkpoint", 2),
    ("averaged", "between two files of outputs", 2),
    pytest.param("averaged", "before the outputs", 1, marks=SLOW),
    pytest.param("averaged", "before the history", 2, marks=SLOW),
    pytest.param("averaged", "before the checkpoint", 3, marks=SLOW),
    pytest.param("averaged", "after the checkpoint", 2, marks=SLOW),
]


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
    (checkpoint, "save", False),
    pytest.param(run_folder, "remove_files", False, marks=SLOW),
    pytest.param(run_folder, "write_sample_indices", False, marks=SLOW),
    (run_folder, "write_config", False),
    pytest.param(run_folder, "write_config", True, marks=SLOW),
]


@pytest.mark.parametrize(("module", "name", "after"), STARTS)
def test_a_run_that_is_stopped_while_it_replaces_another(whole, script, module, name, after):
    flags = [*FLAGS, *VARIANTS["batch"], "--run=stopped"]
    others = ["--epochs=1", "--lr=0.1", "--sample-size=20"]
    assert script("train", *FLAGS, *others, "--run=stopped")[0] == 0
    run_folder.write_measure(STOPPED, run_folder.FREQUENCY, {})
    before = folder_bytes(STOPPED)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, module, name, 1, after)
        assert script("train", *flags, "--overwrite")[0] == 130
    if name == "save":
        before["lock"] = (STOPPED / "lock").read_bytes()
        assert folder_bytes(STOPPED) == before  # no byte of the old run is lost
        return
    # Whether the run exists says which of the two works.
    exists = (STOPPED / "config.json").exists()
    assert script("train", *flags, *["--resume"] * exists)[0] == 0
    assert_equal_runs(STOPPED, whole("batch"), 3)
    # Nothing is left of the old run.
    config, expected = (run_folder.read_config(run) for run in (STOPPED, whole("batch")))
    for each in (config, expected):
        each["flags"] |= {"run": None, "resume": False, "overwrite": False}
    assert config == expected and not (STOPPED / "frequency.json").exists()


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
def test_resuming_a_complete_run_changes_nothing(study, script, resume):
    before = folder_bytes(RUN)
    status, out, err = script("train", *COMPLETE, resume)
    assert (status, err) == (0, "") and out.endswith(f"done: {RUN}\n") and "1/6" not in out
    before["lock"] = (RUN / "lock").read_bytes()
    assert folder_bytes(RUN) == before


@pytest.mark.parametrize("resume", ["--resume", "--resume=auto"])
def test_a_run_that_lost_its_config_or_sample_is_kept_and_gets_them_back(
    study, script, refused, resume
):
    sample = (RUN / "train_indices.npy").read_bytes()
    flags = run_folder.read_config(RUN)["flags"]
    (RUN / "train_indices.npy").unlink()
    (RUN / "config.json").unlink()
    before = folder_bytes(RUN)
    assert f"{RUN} exists; use --resume" in refused("train", *COMPLETE)
    assert folder_bytes(RUN) == before
    assert script("train", *COMPLETE, resume)[0] == 0
    assert run_folder.read_config(RUN)["flags"] == flags | {"resume": resume[9:] or True}
    after = folder_bytes(RUN)
    assert after.pop("train_indices.npy") == sample and after.pop("config.json")
    assert after | {"lock": b""} == before | {"lock": b""}


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[200] ^= 1
    path.write_bytes(raw)


def cut_history(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))


# What makes --resume impossible: flags, a file and what happens to it, words of the message.
REFUSED = [
    ("--lr=0.1", None, None, "lr = 0.02, not 0.1"),
    ("--augment", None, None, "augment = False"),
    ("--sample-size=20", None, None, "sample_size = None"),
    ("--ema-decay=0.5", None, None, "ema_decay = 0.0, not 0.5"),
    ("--teacher=previous-epoch", None, None, "teacher = batch"),
    ("", "checkpoint.pt", Path.unlink, "checkpoint.pt does not exist --overwrite"),
    ("", "checkpoint.pt", flip, "checkpoint.pt is damaged --overwrite"),
    ("", "history.jsonl", cut_history, "history.jsonl ends at epoch 2 epoch 6; --run"),
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


# In processes of their own


@SLOW
def test_kill_9_at_12_random_moments(tmp_path):
    # Much to write and little to train, so that many kills hit a write.
    write_dataset(tmp_path / "data/small.npz", make_dataset(train=20, test=1000))
    flags = [*FLAGS, *VARIANTS["averaged"]]
    done = run_python(PROGRAMS / "train_killed.py", 12, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    kills, *names = done.stdout.split()
    assert int(kills) >= 12 and names
    for name in names:
        run = tmp_path / "runs/small" / name
        assert_equal_runs(run, run.with_name("whole"), 3)
        assert not list(run.glob("*tmp"))


LIMITED = """
import resource, sys, train
resource.setrlimit(resource.RLIMIT_FSIZE, (220_000, resource.RLIM_INFINITY))
sys.exit(train.main(sys.argv[1:]))
"""


@SLOW
def test_disk_that_fills_up(workplace):
    write_dataset(Path("data/small.npz"), make_dataset(train=20, test=6000))
    # Of a file, two epochs of 96,000 bytes of outputs fit, the third does not.
    done = run_python("-c", LIMITED, *FLAGS, "--run=stopped")
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert "File too large" in done.stderr
    assert checkpoint.read(STOPPED)["epoch"] == len(history(STOPPED)) == 2
