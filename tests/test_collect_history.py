"""collect_history.py: what is collected, the summary, the refusals."""

import json
from pathlib import Path

import numpy as np
import pytest

import runs


def test_every_curve_of_every_run(study, script):
    assert script("frequency", "--delta", 100, 400)[0] == 0
    status, out, err = script("collect_history")
    assert status == 0 and err == ""
    history = json.loads(Path("history.json").read_text())
    assert [run["run"] for run in history["runs"]] == [
        f"dis{dis}-small_cnn-seed{seed}" for dis in (0, 1) for seed in (0, 1)
    ]
    assert history["data"]["noise"] == "pair" and history["data"]["name"] == "small"
    for run in history["runs"]:
        folder = Path("runs/small") / run["run"]
        records, _ = runs.read_history(folder)
        for key in records[0]:
            assert run["history"][key] == [record[key] for record in records]
        frequency = json.loads((folder / "frequency.json").read_text())
        for part in ("test", "probe"):
            del frequency[part]["products"]
        assert run["frequency"] == frequency
        assert run["loss"] == ("cross-entropy", "self-distillation")[run["settings"]["dis"]]
        assert run["settings"]["lr"] == 0.05 and run["settings"]["model"] == "small_cnn"
        assert run["run"] in out
    assert "history.json" in out


def test_it_does_not_depend_on_where_it_is_run(study, script, monkeypatch):
    assert script("collect_history", "--out", "a.json")[0] == 0
    monkeypatch.chdir("data")
    assert script("collect_history", study / "runs", "--out", "../b.json")[0] == 0
    assert (study / "a.json").read_bytes() == (study / "b.json").read_bytes()


def test_a_run_on_its_way_is_collected_with_a_note(study, script):
    path = Path("runs/small/dis0-small_cnn-seed0/history.jsonl")
    path.write_bytes(path.read_bytes()[:-5])
    status, out, err = script("collect_history")
    assert status == 0 and "half-written" in err and err.count("\n") == 1
    assert "at epoch 2, best" in out.split("dis0-small_cnn-seed0:")[1].splitlines()[0]


@pytest.mark.parametrize("damage", ["no runs", "no history", "bad config", "bad frequency"])
def test_refusals_keep_the_old_file(study, script, refused, damage):
    assert script("collect_history")[0] == 0
    before = Path("history.json").read_bytes()
    run, flags, word = Path("runs/small/dis0-small_cnn-seed0"), [], str
    if damage == "no runs":
        flags, word = ["--runs", "nowhere"], "train.py"
    elif damage == "no history":
        (run / "history.jsonl").unlink()
        word = "history.jsonl"
    elif damage == "bad config":
        (run / "config.json").write_text("{")
        word = "config.json"
    else:
        (run / "frequency.json").write_text("[]")
        word = "frequency.py"
    assert word in refused("collect_history", *flags)
    assert Path("history.json").read_bytes() == before


def test_runs_of_two_data_sets_are_refused(study, refused):
    config = runs.read_config(Path("runs/small/dis1-small_cnn-seed1"))
    config["data"]["digest"] = "0" * 64
    other = Path("runs/other/dis1-small_cnn-seed1")
    runs.write_json(other / "config.json", config)
    runs.append_history(other, {"epoch": 1, "test_accuracy": 1.0})
    for name in ("collect_history", "plot"):
        message = refused(name)
        assert "two data sets" in message and "runs/other" in message
    assert not Path("history.json").exists() and not Path("figures").exists()


def test_numbers_survive_the_round_trip(study, script):
    assert script("collect_history")[0] == 0
    run = json.loads(Path("history.json").read_text())["runs"][0]
    logits = np.load(Path("runs/small") / run["run"] / "logits.npy")
    labels = np.arange(40) % 4
    accuracy = [100 * np.mean(z.argmax(1) == labels) for z in logits]
    np.testing.assert_allclose(run["history"]["test_accuracy"], accuracy)


def test_runs_of_two_settings_are_collected_without_a_common_mean(study, script):
    run = Path("runs/small/dis0-small_cnn-seed0")
    config = runs.read_config(run)
    config["flags"]["lr"] = 0.1
    runs.write_json(run / "config.json", config)
    status, out, _ = script("collect_history")
    assert status == 0 and "no summary over seeds" in out and "differ in lr" in out
    assert len(json.loads(Path("history.json").read_text())["runs"]) == 4
