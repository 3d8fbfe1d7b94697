"""runs.py: the run folder's files, whole or cut short."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import runs

ROOT = Path(__file__).parent.parent


def test_logits_grow_by_an_epoch_and_are_a_plain_npy(tmp_path):
    epochs = np.random.default_rng(0).standard_normal((12, 5, 3)).astype(np.float32)
    for count, logits in enumerate(epochs, start=1):
        runs.append_logits(tmp_path / "logits.npy", logits)
        np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), epochs[:count])
    found, note = runs.read_logits(tmp_path / "logits.npy")
    np.testing.assert_array_equal(found, epochs)
    assert note == ""
    size = (tmp_path / "logits.npy").stat().st_size
    assert size == 128 + epochs.nbytes


def test_an_epoch_written_in_part_is_not_counted(tmp_path):
    epochs = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    runs.append_logits(tmp_path / "logits.npy", epochs[0])
    with open(tmp_path / "logits.npy", "ab") as file:
        file.write(b"half")
    np.testing.assert_array_equal(runs.read_logits(tmp_path / "logits.npy")[0], epochs[:1])


def test_of_a_file_cut_short_the_whole_epochs_are_read(tmp_path):
    epochs = np.random.default_rng(0).standard_normal((3, 5, 3)).astype(np.float32)
    path = tmp_path / "logits.npy"
    for logits in epochs:
        runs.append_logits(path, logits)
    raw = path.read_bytes()
    for size, whole in ((len(raw) - 1, 2), (len(raw) - 61, 1), (130, 0)):
        path.write_bytes(raw[:size])
        found, note = runs.read_logits(path)
        np.testing.assert_array_equal(found, epochs[:whole])
        assert "cut short" in note and f"{whole} of 3" in note
    path.write_bytes(raw[:50])
    with pytest.raises(runs.RunError, match=r"logits\.npy"):
        runs.read_logits(path)


def test_history_round_trip_and_refusal_of_nan(tmp_path):
    records = [{"epoch": 1, "memorized": None, "loss": 0.1}, {"epoch": 2, "loss": 1 / 3}]
    for record in records:
        runs.append_history(tmp_path, record)
    assert runs.read_history(tmp_path) == (records, "")
    with pytest.raises(ValueError, match="not JSON compliant"):
        runs.append_history(tmp_path, {"loss": float("nan")})
    assert runs.read_history(tmp_path) == (records, "")


def test_half_written_last_line_is_dropped_with_a_note(tmp_path):
    runs.append_history(tmp_path, {"epoch": 1})
    with open(tmp_path / "history.jsonl", "a") as file:
        file.write('{"epoch": 2, "lo')
    records, note = runs.read_history(tmp_path)
    assert records == [{"epoch": 1}] and "half-written" in note and "history.jsonl" in note


@pytest.mark.parametrize("text", [None, "", '{"epoch"', '{"epoch": 1}\nnonsense\n{"epoch": 3}\n'])
def test_a_history_without_a_whole_record_or_with_damage_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "history.jsonl").write_text(text)
    with pytest.raises(runs.RunError, match=r"history\.jsonl"):
        runs.read_history(tmp_path)


def test_truncation_to_the_checkpoints_epoch(tmp_path):
    epochs = np.random.default_rng(0).standard_normal((3, 5, 3)).astype(np.float32)
    for k in range(3):
        runs.append_logits(tmp_path / "logits.npy", epochs[k])
        runs.append_history(tmp_path, {"epoch": k + 1})
        if k == 1:
            before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    runs.truncate_run(tmp_path, 2)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    with pytest.raises(runs.RunError, match="checkpoint is of epoch 3"):
        runs.truncate_run(tmp_path, 3)
    runs.truncate_run(tmp_path, 0)
    assert not list(tmp_path.iterdir())


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    runs.write_json(path, {"a": [1.5, None]})
    assert runs.read_json(path, "") == {"a": [1.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        runs.write_json(path, {"a": float("inf")})
    assert runs.read_json(path, "") == {"a": [1.5, None]} and len(list(tmp_path.iterdir())) == 1
    for text in ("{", "[1]"):
        path.write_text(text)
        with pytest.raises(runs.RunError, match="do this"):
            runs.read_json(path, "do this")


def test_runs_are_found_by_their_config(tmp_path):
    for name in ("b/two", "a/one", "a/none"):
        (tmp_path / name).mkdir(parents=True)
        if "none" not in name:
            (tmp_path / name / "config.json").write_text("{}")
    assert runs.find_runs([tmp_path]) == [tmp_path / "a/one", tmp_path / "b/two"]
    assert runs.find_runs([tmp_path / "a/one", tmp_path / "a"]) == [tmp_path / "a/one"]
    for path in ("a/none", "nowhere"):
        with pytest.raises(runs.RunError, match=r"train\.py"):
            runs.find_runs([tmp_path / path])


def test_one_process_holds_a_lock(tmp_path):
    hold = "import sys, time, pathlib, runs\nwith runs.locked(pathlib.Path(sys.argv[1])):\n"
    hold += "    print('held', flush=True)\n    time.sleep(60)"
    command = [sys.executable, "-c", hold, str(tmp_path)]
    other = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(runs.RunError, match=f"process {other.pid} on"), runs.locked(tmp_path):
            pass
    finally:
        other.kill()
        other.wait()
    # A dead process's lock stops nobody, though its file is still there.
    assert (tmp_path / "lock").exists()
    for _ in range(2):
        with runs.locked(tmp_path):
            assert str(os.getpid()) in (tmp_path / "lock").read_text()


def test_names_of_runs_and_losses():
    flags = {"dis": 1, "teacher": "batch", "soft": False, "weight": None, "seed": 2}
    flags |= {"model": "shake_resnet", "depth": 26, "width": 32}
    found = [
        (runs.run_name(flags | changed), runs.loss_name(flags | changed))
        for changed in (
            {"dis": 0, "model": "small_cnn"},
            {},
            {"teacher": "previous-epoch"},
            {"teacher": "previous-epoch", "soft": True, "weight": 0.5},
            {"soft": True},
            {"weight": 0.2},
            {"teacher": "uniform", "weight": 0.1},
        )
    ]
    assert found == [
        ("dis0-small_cnn-seed2", "cross-entropy"),
        ("dis1-shake26-2x32d-seed2", "self-distillation"),
        ("dis1-previous-epoch-shake26-2x32d-seed2", "self-distillation, previous epoch"),
        (
            "dis1-previous-epoch-soft-weight0.5-shake26-2x32d-seed2",
            "self-distillation, previous epoch, soft, weight 0.5",
        ),
        ("dis1-soft-shake26-2x32d-seed2", "self-distillation, soft"),
        ("dis1-weight0.2-shake26-2x32d-seed2", "bootstrapping, weight 0.2"),
        ("dis1-uniform-weight0.1-shake26-2x32d-seed2", "label smoothing, weight 0.1"),
    ]


def test_collecting_and_plotting_import_no_torch():
    code = "import sys, runs, collect_history, plot; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_nothing_on_disk_is_a_pickle(trained):
    for run in runs.find_runs([trained / "runs"]):
        names = {path.name for path in run.iterdir()}
        assert names == {*runs.FILES, "lock"} - {"frequency.json", "done"}
        json.loads((run / "config.json").read_text())
        for name in (*runs.LOGITS, "probe_indices.npy"):
            np.load(run / name, allow_pickle=False)
        torch.load(run / "checkpoint.pt", weights_only=True)
