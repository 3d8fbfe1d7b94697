"""The run folder's files, whole or cut short: run_folder.py, logits.py, files.py."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import filelock
import numpy as np
import pytest
import torch
from helpers import PROGRAMS, environment

from common import run_folder
from common.errors import UserError
from common.files import read_json, write_json
from common.logits import append_logits, read_logits
from losses import SELF_DISTILLATION as SELF
from training.settings import RunSettings


def test_logits_grow_by_an_epoch_and_are_a_plain_npy(tmp_path):
    epochs = np.random.default_rng(0).standard_normal((12, 5, 3)).astype(np.float32)
    for count, logits in enumerate(epochs, start=1):
        append_logits(tmp_path / "logits.npy", logits)
        np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), epochs[:count])
    found, note = read_logits(tmp_path / "logits.npy")
    np.testing.assert_array_equal(found, epochs)
    assert note == ""
    size = (tmp_path / "logits.npy").stat().st_size
    assert size == 128 + epochs.nbytes


def test_an_epoch_written_in_part_is_not_counted(tmp_path):
    epochs = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    append_logits(tmp_path / "logits.npy", epochs[0])
    with open(tmp_path / "logits.npy", "ab") as file:
        file.write(b"half")
    np.testing.assert_array_equal(read_logits(tmp_path / "logits.npy")[0], epochs[:1])


def test_of_a_file_cut_short_the_whole_epochs_are_read(tmp_path):
    epochs = np.random.default_rng(0).standard_normal((3, 5, 3)).astype(np.float32)
    path = tmp_path / "logits.npy"
    for logits in epochs:
        append_logits(path, logits)
    raw = path.read_bytes()
    for size, whole in ((len(raw) - 1, 2), (len(raw) - 61, 1), (130, 0)):
        path.write_bytes(raw[:size])
        found, note = read_logits(path)
        np.testing.assert_array_equal(found, epochs[:whole])
        assert "cut short" in note and f"{whole} of 3" in note
    path.write_bytes(raw[:50])
    with pytest.raises(UserError, match=r"logits\.npy"):
        read_logits(path)


def test_history_round_trip_and_refusal_of_nan(tmp_path):
    records = [{"epoch": 1, "memorized": None, "loss": 0.1}, {"epoch": 2, "loss": 1 / 3}]
    for record in records:
        run_folder.append_history(tmp_path, record)
    assert run_folder.read_history(tmp_path) == (records, "")
    with pytest.raises(ValueError, match="not JSON compliant"):
        run_folder.append_history(tmp_path, {"loss": float("nan")})
    assert run_folder.read_history(tmp_path) == (records, "")


def test_half_written_last_line_is_dropped_with_a_note(tmp_path):
    run_folder.append_history(tmp_path, {"epoch": 1})
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"epoch": 2, "lo')
    records, note = run_folder.read_history(tmp_path)
    assert records == [{"epoch": 1}] and "half-written" in note and "history.jsonl" in note


@pytest.mark.parametrize("text", [None, "", '{"epoch"', '{"epoch": 1}\nnonsense\n{"epoch": 3}\n'])
def test_a_history_without_a_whole_record_or_with_damage_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "history.jsonl").write_text(text)
    with pytest.raises(UserError, match=r"history\.jsonl"):
        run_folder.read_history(tmp_path)


def test_truncation_to_the_checkpoints_epoch(tmp_path):
    epochs = np.random.default_rng(0).standard_normal((3, 5, 3)).astype(np.float32)
    for k in range(3):
        append_logits(tmp_path / "logits.npy", epochs[k])
        run_folder.append_history(tmp_path, {"epoch": k + 1})
        if k == 1:
            before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    run_folder.truncate_run(tmp_path, 2)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    with pytest.raises(UserError, match="checkpoint is of epoch 3"):
        run_folder.truncate_run(tmp_path, 3)
    run_folder.truncate_run(tmp_path, 0)
    assert not list(tmp_path.iterdir())


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": [1.5, None]})
    assert read_json(path, "") == {"a": [1.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("inf")})
    assert read_json(path, "") == {"a": [1.5, None]} and len(list(tmp_path.iterdir())) == 1
    for text in ("{", "[1]"):
        path.write_text(text)
        with pytest.raises(UserError, match="do this"):
            read_json(path, "do this")


def test_runs_are_found_by_their_config(tmp_path):
    for name in ("b/two", "a/one", "a/none"):
        (tmp_path / name).mkdir(parents=True)
        if "none" not in name:
            (tmp_path / name / "config.json").write_text("{}")
    assert run_folder.find_runs([tmp_path]) == [tmp_path / "a/one", tmp_path / "b/two"]
    assert run_folder.find_runs([tmp_path / "a/one", tmp_path / "a"]) == [tmp_path / "a/one"]
    for path in ("a/none", "nowhere"):
        with pytest.raises(UserError, match=r"train\.py"):
            run_folder.find_runs([tmp_path / path])


def test_one_process_holds_a_lock(tmp_path):
    command = [sys.executable, str(PROGRAMS / "hold_lock.py"), str(tmp_path)]
    other = subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=environment()
    )
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"process {other.pid} on"), run_folder.locked(tmp_path):
            pass
    finally:
        other.kill()
        other.wait()
    # A dead process's lock stops nobody, though its file is still there.
    assert (tmp_path / "lock").exists()
    for _ in range(2):
        with run_folder.locked(tmp_path):
            assert str(os.getpid()) in (tmp_path / "lock").read_text()


def test_a_file_system_without_locks_trains_without_one(tmp_path, monkeypatch, capsys):
    def no_locks(lock):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(filelock.FileLock, "acquire", no_locks)
    with run_folder.locked(tmp_path):
        assert "no locks" in capsys.readouterr().out

    def forbidden(lock):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(filelock.FileLock, "acquire", forbidden)
    with pytest.raises(PermissionError), run_folder.locked(tmp_path):
        pass


def test_stale_temporary_files_are_removed_under_the_lock(tmp_path):
    (tmp_path / "checkpoint.pt.123.tmp").write_text("cut short")
    with run_folder.locked(tmp_path):
        assert not list(tmp_path.glob("*.tmp"))


def settings(**changes):
    return RunSettings(data=Path("d/x.npz"), seed=2, **changes)


@pytest.mark.parametrize(
    "changes, folder, title",
    [
        ({"model": "small_cnn"}, "dis0-small_cnn-seed2", "cross-entropy"),
        ({"loss": SELF}, "dis1-shake26-2x32d-seed2", SELF),
        (
            {"loss": SELF, "teacher": "previous-epoch", "soft": True, "weight": 0.5},
            "dis1-previous-epoch-soft-weight0.5-shake26-2x32d-seed2",
            "self-distillation, previous epoch, soft, weight 0.5",
        ),
        ({"loss": SELF, "soft": True}, "dis1-soft-shake26-2x32d-seed2", f"{SELF}, soft"),
        (
            {"loss": SELF, "weight": 0.2},
            "dis1-weight0.2-shake26-2x32d-seed2",
            "bootstrapping, weight 0.2",
        ),
        (
            {"loss": SELF, "teacher": "uniform", "weight": 0.1},
            "dis1-uniform-weight0.1-shake26-2x32d-seed2",
            "label smoothing, weight 0.1",
        ),
    ],
)
def test_names_of_runs_and_losses(changes, folder, title):
    run = settings(**changes)
    assert run.folder == Path("runs/x") / folder and run.loss_function.title == title


def test_nothing_on_disk_is_a_pickle(trained_study):
    for run in run_folder.find_runs([trained_study / "runs"]):
        names = {path.name for path in run.iterdir()}
        assert names == {*run_folder.FILES, "lock"} - {
            "val_logits.npy",  # no images are held out
            "frequency.json",
            "memorization.json",
            "spectrum.json",
        }
        json.loads((run / "config.json").read_text())
        for name in (*run_folder.LOGITS, run_folder.SAMPLE_INDICES):
            np.load(run / name, allow_pickle=False)
        torch.load(run / "checkpoint.pt", weights_only=True)
