"""collect_history.py: what is collected and where it goes, the notes, the refusals."""

import json
from pathlib import Path

import numpy as np
import pytest

from common.files import write_json
from common.run_folder import append_history, read_config, read_history, write_config

RUNS = Path("runs/small")
RUN, HISTORY = RUNS / "dis0-small_cnn-seed0", RUNS / "history.json"
WRITTEN = ("history.json", "summary.json", "summary.csv")


def read_json(path):
    return json.loads(path.read_text())


def test_every_curve_of_every_run(study_outputs, script):
    assert script("frequency", "--delta", 100, 400)[0] == 0
    status, out, err = script("collect_history")
    assert status == 0 and err == ""
    history = read_json(HISTORY)
    assert [run["run"] for run in history["runs"]] == [
        f"dis{dis}-small_cnn-seed{seed}" for dis in (0, 1) for seed in (0, 1)
    ]
    assert history["data"]["noise"] == "pair" and history["data"]["name"] == "small"
    for run in history["runs"]:
        records, _ = read_history(RUNS / run["run"])
        names = records[0].keys() - {"sha256"}
        assert run["history"] == {name: [r[name] for r in records] for name in names}
        frequency = read_json(RUNS / run["run"] / "frequency.json")
        for section in ("test", "probe"):
            del frequency[section]["products"]
        assert run["frequency"] == frequency
        assert run["loss"] == ("cross-entropy", "self-distillation")[run["settings"]["dis"]]
        assert run["settings"]["lr"] == 0.05 and run["settings"]["model"] == "small_cnn"
        assert run["seed"] == run["settings"]["seed"] == int(run["run"][-1])
        assert run["run"] in out
    assert "written: runs/small/history.json" in out


@pytest.mark.parametrize("flags", [[], ["runs"], [RUNS], [RUN], ["--runs", RUNS]])
def test_the_files_go_into_the_folder_of_the_runs(study_outputs, script, flags):
    status, out, _ = script("collect_history", *flags)
    assert status == 0
    made = {str(path) for path in Path().rglob("*") if path.name in WRITTEN}
    assert made == {f"runs/small/{name}" for name in WRITTEN}
    assert all(f"runs/small/{name}" in out for name in WRITTEN)


def test_out_and_summary_name_other_files(study_outputs, script):
    flags = ["--out", "elsewhere/all.json", "--summary", "table"]
    assert script("collect_history", *flags)[0] == 0
    names = {path.name for path in Path("elsewhere").iterdir()}
    assert names == {"all.json", "table.json", "table.csv"}
    assert not HISTORY.exists()


def test_the_result_does_not_depend_on_the_working_folder(study_outputs, script, monkeypatch):
    assert script("collect_history", "--out", "a.json")[0] == 0
    monkeypatch.chdir("data")
    assert script("collect_history", study_outputs / "runs", "--out", "../b.json")[0] == 0
    assert (study_outputs / "a.json").read_bytes() == (study_outputs / "b.json").read_bytes()


def test_collecting_twice_writes_the_same_file(study_outputs, script):
    assert script("collect_history")[0] == 0
    before = HISTORY.read_bytes()
    assert script("collect_history")[0] == 0
    assert HISTORY.read_bytes() == before


def test_a_run_in_progress_is_collected_with_a_note(study_outputs, script):
    path = RUN / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    status, out, err = script("collect_history")
    assert status == 0 and "half-written" in err and err.count("\n") == 1
    assert "at epoch 2, best" in out.split("dis0-small_cnn-seed0:")[1].splitlines()[0]
    assert len(read_json(HISTORY)["runs"][0]["history"]["epoch"]) == 2


# What is wrong: how it is made so, the flags, and a word of the message.
DAMAGES = {
    "no runs": (lambda: None, ["--runs", "nowhere"], "train.py"),
    "no history": (lambda: (RUN / "history.jsonl").unlink(), [], "history.jsonl"),
    "bad line": (lambda: (RUN / "history.jsonl").write_text("{\n{}\n"), [], "line 1"),
    "bad config": (lambda: (RUN / "config.json").write_text("{"), [], "config.json"),
    "bad frequency": (lambda: (RUN / "frequency.json").write_text("[]"), [], "frequency.py"),
    "no section": (lambda: (RUN / "frequency.json").write_text("{}"), [], "frequency.py"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_refusal_keeps_the_old_file(study_outputs, script, refused, name):
    assert script("collect_history")[0] == 0
    before = HISTORY.read_bytes()
    damage, flags, word = DAMAGES[name]
    damage()
    assert word in refused("collect_history", *flags)
    assert HISTORY.read_bytes() == before


def test_runs_of_two_data_sets_are_refused(study_outputs, refused):
    config = read_config(RUNS / "dis1-small_cnn-seed1")
    config["data"] |= {"digest": "0" * 64, "noise": "symmetric", "name": "other"}
    other = Path("runs/other/dis1-small_cnn-seed1")
    write_json(other / "config.json", config)
    append_history(other, {"epoch": 1, "test_accuracy": 1.0})
    for name in ("collect_history", "plot"):
        message = refused(name)
        assert "differ in noise" in message and "other" in message
    assert not list(Path().rglob("history.json")) and not Path("figures").exists()


def test_accuracies_are_those_of_the_logits(study_outputs, script):
    assert script("collect_history")[0] == 0
    labels = np.arange(40) % 4
    for run in read_json(HISTORY)["runs"]:
        logits = np.load(RUNS / run["run"] / "logits.npy")
        accuracy = [100 * np.mean(z.argmax(1) == labels) for z in logits]
        np.testing.assert_allclose(run["history"]["test_accuracy"], accuracy)


def test_runs_of_two_settings_are_collected_without_a_common_mean(study_outputs, script):
    config = read_config(RUN)
    config["flags"]["lr"] = 0.1
    write_config(RUN, config)
    status, out, _ = script("collect_history")
    assert status == 0 and "no summary over seeds" in out and "differ in lr" in out
    assert len(read_json(HISTORY)["runs"]) == 4 and not (RUNS / "summary.json").exists()
