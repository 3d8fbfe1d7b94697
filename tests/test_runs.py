"""runs.py: the run folder's files, whole or cut short."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

import runs


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


def test_checkpoint_round_trip(tmp_path):
    content = {"epoch": 3, "model": {"w": torch.randn(3)}, "settings": {"lr": 0.1, "x": None}}
    runs.write_checkpoint(tmp_path, content)
    found = runs.read_checkpoint(tmp_path, "cpu")
    assert torch.equal(found["model"]["w"], content["model"]["w"])
    assert found["settings"] == content["settings"] and found["epoch"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


class Bomb:
    def __reduce__(self):
        return (print, ("boom",))


@pytest.mark.parametrize("damage", ["bomb", "torch bomb", "truncated", "empty", "list"])
def test_a_damaged_checkpoint_is_refused_and_never_executed(tmp_path, capsys, damage):
    path = tmp_path / "checkpoint.pt"
    runs.write_checkpoint(tmp_path, {"epoch": 3, "model": {"w": torch.randn(300)}})
    raw = path.read_bytes()
    if damage == "torch bomb":
        torch.save({"format": 1, "model": Bomb()}, path)
    elif damage == "list":
        torch.save([1, 2], path)
    else:
        part = {
            "bomb": pickle.dumps(Bomb(), protocol=2),
            "truncated": raw[: len(raw) // 2],
            "empty": b"",
        }
        path.write_bytes(part[damage])
    with pytest.raises(runs.RunError, match=r"checkpoint\.pt"):
        runs.read_checkpoint(tmp_path, "cpu")
    assert "boom" not in capsys.readouterr().out


def test_collecting_and_plotting_import_no_torch():
    code = "import sys, runs, collect_history, plot; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_nothing_on_disk_is_a_pickle(trained):
    for run in runs.find_runs([trained / "runs"]):
        names = {path.name for path in run.iterdir()}
        assert names == {*runs.FILES} - {"frequency.json", "done"}
        json.loads((run / "config.json").read_text())
        for name in (*runs.LOGITS, "probe_indices.npy"):
            np.load(run / name, allow_pickle=False)
        torch.load(run / "checkpoint.pt", weights_only=True)
