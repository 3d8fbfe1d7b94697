"""analysis/history.py: runs from folders and files, each once, apart by noise, setting and seed."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import make_dataset
from made_runs import DELTAS, DISTILLED, PREVIOUS, make_run, study, with_deltas, write_run

from analysis import history
from common import run_folder
from common.command_line import UserError
from dataset.data_file import write_dataset

pytestmark = pytest.mark.usefixtures("place")


def assert_same(one: history.Run, other: history.Run):
    """Two runs are equal but for the digest of their outputs."""
    for name in ("history", "memorization"):
        first, second = getattr(one, name), getattr(other, name)
        assert first.keys() == second.keys()
        for curve in first:
            np.testing.assert_allclose(first[curve], second[curve], rtol=1e-12)
    for name in ("name", "loss", "network", "seed", "epochs", "settings", "data", "frequency"):
        assert getattr(one, name) == getattr(other, name)


def test_a_run_from_its_folder():
    run = make_run(validation=None)
    # Measures that are no longer made: older files have them.
    for content in (run.frequency["test"], run.frequency["sample"]):
        content["outputs"] |= dict.fromkeys(("lfr", "excess"), [[0.1, 0.2, 0.3]] * 3)
        content |= {"null": [0.1] * 3, "alone": [0.5] * 3}
    read, notes = history.read_run(write_run(run))
    run.frequency["measured_from"] = read.measured_from
    assert_same(read, run)
    assert notes == [] and "device" not in read.settings and "data" not in read.settings


def test_a_history_file_gives_the_same_runs():
    runs = study(noises=["pair"], losses=["cross-entropy", DISTILLED])
    runs[0] = make_run(validation=None, gap=None, frequency=False, memorization=False)
    history.write_history(Path("h.json"), runs)
    for run, again in zip(runs, history.read_history(Path("h.json")), strict=True):
        assert_same(run, again)
        assert again.measured_from == run.measured_from
    assert "NaN" not in Path("h.json").read_text()


def test_rounding_keeps_what_tells_runs_apart():
    run = make_run(accuracy=(1 / 3, 200 / 3), validation=(1, 1), gap=(0, 1))
    run = with_deltas(run, [400.125, 564.0625], [5.125, 20.0625])
    run.settings["lr"] = 0.0123456
    history.write_history(Path("h.json"), [run], digits=3)
    (again,) = history.read_history(Path("h.json"))
    np.testing.assert_array_equal(again.history["test_accuracy"], [0.333, 66.7])
    assert again.settings["lr"] == 0.0123456
    assert again.frequency["test"]["delta"] == [400.125, 564.0625]
    assert again.frequency["test"]["mass"] == [5.12, 20.1]


WRONG_FILES = {
    "missing": None,
    "no JSON": "{",
    "no runs": "{}",
    "empty": '{"runs": []}',
    "another list": '{"runs": [1, 2]}',
}
WRONG_ENTRIES = {
    "a curve is missing": lambda run: run["history"].pop("val_accuracy"),
    "a curve is short": lambda run: run["history"]["test_accuracy"].pop(),
    "a curve is text": lambda run: run["history"].update(epoch=["a", "b", "c"]),
    "seed is text": lambda run: run.update(seed="6"),
    "no noise": lambda run: run["data"].pop("noise"),
    "settings is a list": lambda run: run.update(settings=[]),
    "an epoch of a band is missing": lambda run: run["frequency"]["test"].update(
        outputs={"e_low": [[1, 2, 3]]}
    ),
    "a delta too many": lambda run: run["frequency"]["sample"]["delta"].append(1e3),
}


@pytest.mark.parametrize("wrong", [*WRONG_FILES, *WRONG_ENTRIES])
def test_another_file_is_refused(wrong):
    path = Path("h.json")
    if wrong in WRONG_ENTRIES:
        history.write_history(path, [make_run()])
        content = json.loads(path.read_text())
        WRONG_ENTRIES[wrong](content["runs"][0])
        path.write_text(json.dumps(content))
    elif wrong != "missing":
        path.write_text(WRONG_FILES[wrong])
    with pytest.raises(UserError, match=r"h\.json: .*collect_history\.py"):
        history.collect([path])


def test_every_run_is_collected_once():
    runs = study(noises=["pair"], seeds=[6])
    folders = [write_run(run) for run in runs]
    Path("linked").symlink_to(folders[0])
    found, notes = history.collect([Path("runs"), folders[0], Path("linked")])
    assert sorted(run.name for run in found) == sorted(run.name for run in runs) and not notes
    history.write_history(Path("h.json"), found)
    again, _ = history.collect([Path("h.json"), Path("runs"), Path("h.json")])
    assert [run.name for run in again] == [run.name for run in found]
    # A copy under another name is the same run, and the note says so.
    shutil.copytree(folders[0], "copy/other")
    again, notes = history.collect([Path("runs"), Path("copy")])
    assert len(again) == len(runs)
    assert notes == [f"main-pair40-seed6/other: the same run as {runs[0].name}, counted once"]
    # Equal labels, and so equal outputs, on data sets of two names are two runs.
    twin = replace(runs[0], data={**runs[0].data, "digest": "x", "noise": "none"}, name="x/y")
    history.write_history(Path("h.json"), [runs[0], twin])
    assert history.collect([Path("h.json")])[0][1].data["noise"] == "none"
    history.write_history(Path("h.json"), found)
    # A run that has been measured since keeps its measures, in any order.
    unmeasured = [replace(run, frequency=None, memorization={}) for run in found]
    history.write_history(Path("h.json"), unmeasured)
    for sources in (["h.json", "runs"], ["runs", "h.json"]):
        again, _ = history.collect(list(map(Path, sources)))
        assert len(again) == 3 and all(run.frequency and run.memorization for run in again)


def test_what_cannot_be_read_is_named():
    good, bad, stale, damaged = (write_run(make_run(seed=seed)) for seed in (6, 7, 8, 9))
    (bad / "history.jsonl").write_text("{\n")
    shutil.copy(good / run_folder.FREQUENCY, stale)
    content = make_run().frequency
    content["test"]["delta"] = [1.0]
    run_folder.write_measure(damaged, run_folder.FREQUENCY, content)
    found, notes = history.collect([Path("runs")])
    assert {run.seed: run.frequency is None for run in found} == {6: False, 8: True}
    assert ["seed7" in notes[0], "other outputs" in notes[1], "seed9" in notes[2]] == [True] * 3
    assert "left out" in notes[0] and "damaged" in notes[2] and len(notes) == 3
    shutil.rmtree(good)
    shutil.rmtree(stale)
    with pytest.raises(UserError, match="seed7"):
        history.collect([Path("runs")])


def edit(name: str, points: float) -> Path:
    """Change a curve of history.jsonl in the second epoch of a trained run; returns the run."""
    folder = Path("runs/small/dis0-seed0")
    records, _ = run_folder.read_history(folder)
    records[1][name] += points
    (folder / "history.jsonl").unlink()
    for record in records:
        run_folder.append_history(folder, record)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        *("test_accuracy", "val_accuracy", "sample_memorized"),
        *("sample_clean_accuracy_right", "sample_clean_accuracy_wrong"),
    ],
)
def test_an_accuracy_that_was_edited_is_found(name, study, monkeypatch):
    monkeypatch.chdir(study)
    edit(name, 0.04)
    assert len(history.collect([Path("runs")])[0]) == 2
    folder = edit(name, -2.5)
    found, notes = history.collect([Path("runs")])
    assert len(found) == 1 and found[0].loss != "cross-entropy"
    assert f"left out: {folder}/history.jsonl: {name} of epoch 2 is" in notes[-1]
    assert "logits.npy; train the run again" in notes[-1]


def change_labels():
    path = Path("data/small.npz")
    with np.load(path) as file:
        arrays = dict(file)
    arrays["test_labels"] = 9 - arrays["test_labels"]
    np.savez(path, **arrays)


NOT_AT_HAND = {
    "no data set": lambda: Path("data/small.npz").unlink(),
    "another one": lambda: write_dataset(Path("data/small.npz"), make_dataset()),
    "a damaged one": lambda: Path("data/small.npz").write_bytes(b"PK"),
    "other labels in it": change_labels,
    "no outputs": lambda: [path.unlink() for path in Path("runs").rglob("*logits.npy")],
}


@pytest.mark.parametrize("lacking", NOT_AT_HAND)
def test_what_is_not_at_hand_is_not_compared(lacking, study, monkeypatch):
    monkeypatch.chdir(study)
    folder = edit("test_accuracy", 2.5)
    NOT_AT_HAND[lacking]()
    assert history.collect([folder])[1] == []


def test_two_copies_of_a_run_with_other_numbers_are_refused():
    run, _ = history.read_run(write_run(make_run()))
    history.write_history(Path("h.json"), [run], digits=4)
    assert len(history.collect([Path("runs"), Path("h.json")])[0]) == 1
    accuracy = run.history["test_accuracy"] + [0, 1, 0]
    again = replace(run, history={**run.history, "seconds": np.array([9.0, 9.0, 9.0])})
    history.write_history(Path("h.json"), [again])
    assert len(history.collect([Path("runs"), Path("h.json")])[0]) == 1
    edited = replace(run, history={**run.history, "test_accuracy": accuracy})
    shorter = replace(run, history={name: curve[:2] for name, curve in run.history.items()})
    for copy in (edited, replace(shorter, memorization={}, frequency=None)):
        history.write_history(Path("h.json"), [copy])
        for sources in (["h.json", "runs"], ["runs", "h.json"]):
            with pytest.raises(UserError, match="two sources differ in its "):
                history.collect(list(map(Path, sources)))


def test_runs_by_noise_series_and_seed():
    runs = study(losses=[PREVIOUS, "label smoothing", DISTILLED, "cross-entropy"])
    noises = history.by_noise(runs)
    titles = ["pair flip, 40% wrong", "symmetric, 40% wrong", "human, 40% wrong"]
    assert list(noises) == titles
    for noise, series in zip(("pair", "symmetric", "human"), noises.values(), strict=True):
        assert list(series) == ["cross-entropy", DISTILLED, PREVIOUS, "label smoothing"]
        for loss, group in series.items():
            assert list(group) == [6, 7, 8]
            for seed, run in group.items():
                assert (run.loss, run.seed, run.data["noise"]) == (loss, seed, noise)


@pytest.mark.parametrize(
    ("settings", "titles"),
    [
        ([{"lr": 0.05}, {"lr": 0.02}], ["lr 0.05", "lr 0.02"]),
        ([{"augment": False}, {"augment": True}], ["no augment", "augment"]),
        ([{}, {"sample_size": 50}], ["default sample size", "sample size 50"]),
        ([{"sample_size": 50}, {"sample_size": None}], ["sample size 50", "default sample size"]),
        ([{"lr": 1}, {"lr": 2, "amp": True}], ["lr 1, default amp", "lr 2, amp"]),
    ],
)
def test_settings_that_differ_are_said_in_words(settings, titles):
    (series,) = history.by_noise([make_run(settings=flags) for flags in settings]).values()
    assert list(series) == [f"cross-entropy, {title}" for title in titles]


def test_networks_that_differ_are_said():
    runs = [make_run(), replace(make_run(settings={"depth": 14}), network="14-layer 2x16d")]
    (series,) = history.by_noise(runs).values()
    assert list(series) == ["cross-entropy, small_cnn", "cross-entropy, 14-layer 2x16d"]


def test_settings_of_another_noise_do_not_lengthen_the_names():
    runs = [make_run(), make_run(noise="human", settings={"lr": 0.02})]
    assert [list(series) for series in history.by_noise(runs).values()] == [["cross-entropy"]] * 2
    # But a name means the same setting under all noises, and two data sets of one noise are told.
    runs.append(make_run(settings={"lr": 0.01}, data={"name": "all-pair40", "train_size": 900}))
    titles = [list(series) for series in history.by_noise(runs).values()]
    assert sorted(titles) == [[f"cross-entropy, lr {lr}"] for lr in (0.01, 0.02, 0.05)]


@pytest.mark.parametrize("flags", [{"momentum": None}, {"momentum": 0, "soft": False}])
def test_flags_that_are_gone_and_were_off_are_no_difference(flags):
    runs = [make_run(seed=6, settings=flags), make_run(seed=7)]
    assert history.differing_settings(runs) == []
    (series,) = history.by_noise(runs).values()
    assert list(series) == ["cross-entropy"] and list(series["cross-entropy"]) == [6, 7]


def test_data_sets_that_differ_in_more_than_the_seed_are_apart():
    runs = [make_run(seed=seed) for seed in (6, 7)]
    runs += [make_run(seed=seed, data={"name": f"all-pair40-seed{seed}", "train_size": 900})
             for seed in (6, 7)]  # fmt: skip
    noises = history.by_noise(runs)
    assert list(noises) == ["pair flip, 40% wrong, main-pair40", "pair flip, 40% wrong, all-pair40"]
    # A field that an older generate.py did not write tells nothing.
    runs = [make_run(seed=6, data={"label_sha256": "x"}), make_run(seed=7)]
    assert len(history.by_noise(runs)) == 1


ONE = make_run()
COPY = replace(ONE, name="main-pair40-seed7/copy", seed=7, data={**ONE.data, "seed": 7})


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (make_run(data={"label_sha256": "x"}), "same loss, setting and seed"),
        (make_run(DISTILLED, data={"digest": "other"}), "different data sets"),
        (make_run(data={"train_size": 7}), "two kinds of data sets"),
        (COPY, "have the same outputs; train one of them again"),
    ],
)
def test_runs_that_cannot_be_told_apart_are_refused(other, words):
    with pytest.raises(UserError, match=words):
        history.by_noise([ONE, other])


def test_seeds_of_one_data_set_and_of_several():
    one = [make_run(seed=seed, data={"seed": 0, "digest": "x"}) for seed in (0, 1, 2)]
    (series,) = history.by_noise(one).values()
    assert list(series["cross-entropy"]) == [0, 1, 2]
    two = [*one, make_run(seed=3)]
    (series,) = history.by_noise(two).values()
    assert list(series["cross-entropy"]) == [0, "0/1", "0/2", 3]


def test_the_common_name_of_data_sets():
    assert history.common_name(["c-pair40-seed1", "c-pair40-seed12"]) == "c-pair40"
    assert history.common_name(["c-pair40"]) == "c-pair40"
    assert history.common_name(["seed1", "seed2"]) == "seed1"


def test_the_nearest_delta_that_filters():
    section = {"delta": [*DELTAS, 800.0], "mass": [2, 1.9, 20, None]}
    assert history.filtering(section) == [100.0, 564.0]
    # Nearest in the logarithm: 200 is twice 100, and 564 is 2.8 times 200.
    assert history.nearest([100.0, 564.0], 200) == 100 and history.nearest([100, 564], 240) == 564
    assert np.isnan(history.nearest([], 400))


def test_the_gap_and_a_band():
    run = make_run(gap=(1, 2, 4))
    np.testing.assert_array_equal(run.gap, [1, 2, 4])
    np.testing.assert_allclose(run.band("test", "e_low", 400.0), [0.2, 0.4, 0.6])
    for wrong in (("test", "nothing", 400.0), ("test", "e_low", 400.0, "one_hot")):
        with pytest.raises(UserError, match=r"logits: run frequency\.py"):
            run.band(*wrong)
    assert np.isnan(make_run(gap=None).gap).all()


def test_runs_share_the_deltas_that_all_have():
    runs = [make_run(seed=6), with_deltas(make_run(seed=7), [400.0, 600.0], [1.0, 30.0])]
    shared, notes = history.share_deltas([*runs, make_run(noise="human")])
    # Without the deltas, frequency.py would have nothing to do.
    assert len(notes) == 1 and "cross-entropy-seed6 and 1 more: deltas left out" in notes[0]
    assert notes[0].endswith("run frequency.py there with --delta 100 564 600")
    for run in shared[:2]:
        assert history.filtering(run.frequency["test"]) == [400]  # median mass 3
    assert history.filtering(shared[2].frequency["test"]) == [400, 564]
    assert runs[0].frequency["test"]["mass"] == [1.0, 5.0, 20.0]  # as it was


def test_runs_without_frequencies_are_named_and_logits_are_not_mixed_with_softmax():
    shared, notes = history.share_deltas([make_run(), make_run(seed=7, frequency=False)])
    assert len(shared) == 2 and len(notes) == 1 and "seed7: frequencies not measured" in notes[0]
    assert history.share_deltas([make_run(frequency=False)])[1] == []
    logits = with_deltas(make_run(seed=7), values="logits")
    (own, other), notes = history.share_deltas([make_run(), logits])
    assert own.frequency and not other.frequency
    assert len(notes) == 1 and "seed7: frequencies of logits, left out" in notes[0]
    (alone, _), _ = history.share_deltas([logits, make_run(seed=8, frequency=False)])
    assert alone.frequency["values"] == "logits"
