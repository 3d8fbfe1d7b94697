"""A run that is stopped or killed goes on as if it had not been; what is refused, what is kept."""

import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import (
    LEARNING_RUN,
    PROGRAMS,
    SHAKE,
    SMALL_RUN,
    assert_equal_runs,
    folder_bytes,
    history,
    make_dataset,
    run_python,
)
from test_epoch import linear_network

import train
from common import run_folder
from dataset.data_file import write_dataset
from models import MODELS
from training import checkpoint

SLOW = pytest.mark.slow
FLAGS = [*SMALL_RUN, *SHAKE, "--epochs=3"]
VARIANTS = {
    "batch": ["--dis=1"],
    "averaged": ["--dis=1", "--teacher=previous-epoch", "--soft", "--ema-decay=0.9"],
    "elr": ["--loss=early-learning-regularization"],
}
STOPPED = Path("runs/small/stopped")
RUN = Path("runs/small/dis1-seed0")  # of the study
COMPLETE = [*LEARNING_RUN, "--dis=1", "--run=dis1-seed0"]


@contextmanager
def stopped(module, name, number, after):
    """A block in which Ctrl-C is pressed before the `number`-th call of a function, or after it."""
    original, calls = getattr(module, name), []

    def stopping(*args):
        calls.append(args)
        if len(calls) == number and not after:
            raise KeyboardInterrupt
        original(*args)
        if len(calls) == number:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, stopping)
        yield


def without_lock(run):
    """The content of each file of a run but its lock, which names the process."""
    return {name: raw for name, raw in folder_bytes(run).items() if name != "lock"}


@pytest.fixture(scope="module")
def whole_folder(tmp_path_factory):
    """A folder with data/small.npz, for runs that never stop."""
    folder = tmp_path_factory.mktemp("whole")
    write_dataset(folder / "data/small.npz", make_dataset(val=20))
    return folder


@pytest.fixture
def whole(whole_folder, tmp_path, monkeypatch):
    """The folder of a variant's run that never stopped, in a working folder without it."""
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    Path("data/small.npz").symlink_to(whole_folder / "data/small.npz")

    def train_once(variant):
        run = whole_folder / "runs/small" / variant
        if not run.exists():
            flags = [*FLAGS, *VARIANTS[variant], f"--runs={whole_folder / 'runs'}"]
            assert train.main([*flags, f"--run={variant}"]) == 0
        return run

    return train_once


# Of which variant, before or after which call of which function; how many epochs are then done. An
# epoch has three files of outputs; the first checkpoint is of the start.
STOPS = [
    ("elr", checkpoint, "save", 3, False, 1),
    ("averaged", run_folder, "append_outputs", 5, False, 1),
    pytest.param("averaged", run_folder, "append_outputs", 1, False, 0, marks=SLOW),
    pytest.param("averaged", run_folder, "append_history", 2, False, 1, marks=SLOW),
    pytest.param("averaged", checkpoint, "save", 4, False, 2, marks=SLOW),
    pytest.param("averaged", checkpoint, "save", 3, True, 2, marks=SLOW),
]


@pytest.mark.parametrize(("variant", "module", "name", "call", "after", "done"), STOPS)
def test_stopping_and_resuming_equals_never_having_stopped(
    whole, script, variant, module, name, call, after, done
):
    flags = [*FLAGS, *VARIANTS[variant], "--run=stopped"]
    with stopped(module, name, call, after):
        status, _, err = script("train", *flags)
    assert status == 130 and "--resume" in err and err.count("\n") == 1
    assert checkpoint.read(STOPPED)["epoch"] == done
    status, out, _ = script("train", *flags, "--resume" if done == 1 else "--resume=auto")
    assert status == 0 and f"from epoch {done + 1}\n" in out
    assert_equal_runs(STOPPED, whole(variant), 3)


# The steps of a start: before or after each of them it may end.
STARTS = [
    (checkpoint, "save", False),
    pytest.param(run_folder, "remove_files", False, marks=SLOW),
    pytest.param(run_folder, "write_sample_indices", False, marks=SLOW),
    (run_folder, "write_config", False),
    pytest.param(run_folder, "write_config", True, marks=SLOW),
]


@pytest.mark.slow
@pytest.mark.parametrize(("module", "name", "after"), STARTS)
def test_a_run_that_is_stopped_while_it_replaces_another(whole, script, module, name, after):
    flags = [*FLAGS, *VARIANTS["batch"], "--run=stopped"]
    others = ["--epochs=1", "--lr=0.1", "--sample-size=20"]
    assert script("train", *FLAGS, *others, "--run=stopped")[0] == 0
    run_folder.write_measure(STOPPED, run_folder.FREQUENCY, {})
    before = without_lock(STOPPED)
    with stopped(module, name, 1, after):
        assert script("train", *flags, "--overwrite")[0] == 130
    if name == "save":
        assert without_lock(STOPPED) == before  # no byte of the old run is lost
        return
    # Whether the run exists says which of the two works.
    exists = (STOPPED / "config.json").exists()
    assert script("train", *flags, *["--resume"] * exists)[0] == 0
    assert_equal_runs(STOPPED, whole("batch"), 3)
    # Nothing is left of the old run.
    config, expected = (run_folder.read_config(run) for run in (STOPPED, whole("batch")))
    for each in (config, expected):
        each["flags"] |= {"run": None, "runs": None, "resume": False, "overwrite": False}
    assert config == expected and not (STOPPED / "frequency.json").exists()


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
    before = without_lock(away)
    status, out, err = script("train", *COMPLETE, *flags)
    if flags:
        assert (status, out) == (0, f"done: {RUN}\n")
    else:
        assert status == 2 and f"{RUN} exists; use --resume" in err
    assert without_lock(RUN) == before


@pytest.mark.parametrize("resume", ["--resume", "--resume=auto"])
def test_a_complete_run_stays_and_gets_back_its_config_and_sample(study, script, refused, resume):
    before, flags = without_lock(RUN), run_folder.read_config(RUN)["flags"]
    assert script("train", *COMPLETE, resume) == (0, f"done: {RUN}\n", "")
    assert without_lock(RUN) == before
    (RUN / "train_indices.npy").unlink()
    (RUN / "config.json").unlink()
    message = refused("train", *COMPLETE)
    assert f"{RUN} exists; use --resume to go on, --overwrite to start again" in message
    assert script("train", *COMPLETE, resume)[0] == 0
    assert run_folder.read_config(RUN)["flags"] == flags | {"resume": resume[9:] or True}
    after = without_lock(RUN)
    assert after | {"config.json": before["config.json"]} == before


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[200] ^= 1
    path.write_bytes(raw)


def keep_lines(count):
    return lambda path: path.write_text("\n".join([*path.read_text().split("\n")[:count], ""]))


# What makes --resume impossible: a flag, or a file and what happens to it; words of the message;
# the flags that the message asks for instead.
OVERWRITE, ANOTHER = "--overwrite --epochs=1", "--run=another --epochs=1"
REFUSED = [
    ("--lr=0.1", None, "lr = 0.02, not 0.1; use --lr 0.02, or", "--resume --lr=0.1 --lr 0.02"),
    ("--augment", None, "augment = False, use --no-augment, or", "--resume --augment --no-augment"),
    ("--soft", None, "soft = False, leave --soft out, or", "--resume"),
    ("--sample-size=20", None, "sample_size = None, leave --sample-size out, or", "--resume"),
    ("--ema-decay=0.5", None, "ema_decay = 0.0, use --ema-decay 0.0, or", "--resume --ema-decay 0"),
    ("--teacher=previous-epoch", None, "use --teacher batch, or", "--resume --teacher batch"),
    ("checkpoint.pt", Path.unlink, "does not exist: start --overwrite", OVERWRITE),
    ("checkpoint.pt", flip, "is damaged; start --overwrite", OVERWRITE),
    ("history.jsonl", Path.unlink, "0 of the 6 epochs --overwrite", OVERWRITE),
    ("history.jsonl", keep_lines(0), "0 of the 6 epochs --overwrite", OVERWRITE),
    ("history.jsonl", keep_lines(2), "2 of the 6 epochs --overwrite", OVERWRITE),
    ("val_logits.npy", Path.unlink, "no such file; another --run", ANOTHER),
    ("logits.npy", flip, "epoch 1 sha256 another --run", ANOTHER),
]


@pytest.mark.parametrize("resume", ["--resume", pytest.param("--resume=auto", marks=SLOW)])
@pytest.mark.parametrize(("wrong", "damage", "words", "remedy"), REFUSED)
def test_what_cannot_go_on_is_refused_and_kept_until_the_remedy_is_typed(
    study, script, resume, wrong, damage, words, remedy
):
    if damage:
        damage(RUN / wrong)
    before = without_lock(RUN)
    status, _, err = script("train", *COMPLETE, resume, *[wrong] * (damage is None))
    assert status == 2 and err.count("\n") == 1 and (wrong in err or not damage)
    assert all(word in err for word in words.split()), err
    assert without_lock(RUN) == before
    assert script("train", *COMPLETE, *remedy.split())[0] == 0


def test_resuming_on_other_data_is_refused(study, refused):
    write_dataset(Path("data/small.npz"), make_dataset(seed=1))
    assert "another data set" in refused("train", *COMPLETE, "--resume")


@SLOW
def test_killed_at_40_random_moments_with_both_teachers(tmp_path):
    # Much to write and little to train, so that many kills hit a write.
    write_dataset(tmp_path / "data/small.npz", make_dataset(train=20, test=200))
    teachers = [" ".join([*FLAGS, *VARIANTS[variant]]) for variant in ("batch", "averaged")]
    done = run_python(PROGRAMS / "train_killed.py", 20, *teachers, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        kills, whole, *names = line.split()
        assert int(kills) >= 20 and names
        for run in (tmp_path / "runs/small" / name for name in names):
            assert_equal_runs(run, run.with_name(whole), 3)
            assert not list(run.glob("*tmp"))


def test_disk_that_fills_up(workplace, script, monkeypatch):
    monkeypatch.setitem(MODELS, "linear", linear_network)
    write_dataset(Path("data/small.npz"), make_dataset(test=1000))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Of a file, two epochs of 16,000 bytes of outputs fit, the third does not.
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, old[1]))
    try:
        status, _, err = script(
            "train", *SMALL_RUN, "--model=linear", "--epochs=3", "--run=stopped"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert status == 2 and err.count("\n") == 1 and "File too large" in err
    assert checkpoint.read(STOPPED)["epoch"] == len(history(STOPPED)) == 2
