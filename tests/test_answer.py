"""analysis/answer.py and studies of several draws, by hand and against scipy."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers import SMALL_RUN, make_dataset
from scipy import stats

from analysis import answer, history_file, quantities, statistics
from common.errors import UserError
from dataset.data_file import write_dataset


def made_run(loss, seed, accuracy, validation, gap, individual=0.5):
    """A run of history.json with the curves that the answer needs."""
    epochs = len(accuracy)
    curves = {"gap": gap, "gap_error": [1.0] * epochs, "auc": [0.5] * epochs}
    for name in ("softmax_clean", "one_hot_clean", "softmax_transition", "one_hot_transition"):
        curves[name] = [1.0] * epochs
    for name in ("softmax_individual", "one_hot_individual"):
        curves[name] = [individual] * epochs
    for name in ("test_confidence", "test_calibration_error", "confidence"):
        curves[name] = [50.0] * epochs
    levels = {"individual_low": 0.5, "individual_high": 0.25, "clean_low": 0.2, "clean_high": 0.2}
    levels |= {"transition_low": None, "transition_high": None}
    bands = {name: [[level]] * epochs for name, level in levels.items()}
    return {
        "run": f"{loss}-{seed}",
        "loss": loss,
        "network": "small_cnn",
        "seed": seed,
        "data": {"name": f"d-seed{seed}", "digest": str(seed), "seed": seed},
        "settings": {"lr": 0.1},
        "history": {
            "test_accuracy": accuracy,
            "val_accuracy": validation,
            "sample_memorized": [1.0] * epochs,
        },
        "frequency": {"probe": {"delta": [1.0], "outputs": bands, "one_hot": bands}},
        "memorization": {"curves": curves},
    }


def made_history(noise, shift):
    """Three draws; distillation's last epoch beats cross-entropy's early stopping by the shift."""
    runs = []
    for seed, extra in ((1, -1.0), (2, 0.0), (3, 1.0)):
        runs.append(made_run("cross-entropy", seed, [40, 50, 45], [1, 2, 1], [0, 1, 19]))
        last = 50 + shift + extra
        runs.append(made_run("self-distillation", seed, [42, 55, last], [1, 2, 1], [0, 1, 10], 0.2))
    data = {"name": noise, "noise": noise, "rate_found": 0.4, "title": "made", "train_size": 10}
    return {"data": data, "runs": runs}


def rows_by_quantity(rows, noise):
    return {row["quantity"]: row for row in rows if row["noise"] == noise}


def test_the_quantities_by_hand():
    rows = rows_by_quantity(answer.answer([made_history("pair", 2.0)]), "pair")
    primary = rows[quantities.PRIMARY]
    expected = stats.ttest_1samp([1.0, 2.0, 3.0], 0)
    bounds = expected.confidence_interval(0.95)
    assert primary["mean"] == 2 and primary["n"] == 3
    assert (primary["low"], primary["high"]) == pytest.approx((bounds.low, bounds.high))
    assert primary["p"] == primary["p_holm"] == pytest.approx(expected.pvalue)
    assert rows["both stopped early"]["mean"] == 5
    assert rows["both at the last epoch"]["mean"] == 7
    assert rows["cross-entropy: last epoch - early stopping"]["mean"] == -5
    assert rows["own last epoch - own early stopping"]["mean"] == -3
    assert rows["own last epoch - own early stopping, minus that of cross-entropy"]["mean"] == 2
    # Averaged with their neighbors', the validation accuracies are 1.5, 1.33 and 1.5.
    smooth = rows["last epoch - cross-entropy stopped early by a mean of three epochs"]
    assert smooth["mean"] == 52 - 40
    # The gap of cross-entropy exceeds 10 points in the third epoch; that of distillation never.
    assert rows["best test epoch before the gap rises by 10 points"]["mean"] == 5
    # Cross-entropy reaches a gap of 10 half way from 50 to 45.
    equal_gap = rows["last epoch - cross-entropy at equal memorization gap"]
    assert equal_gap["mean"] == pytest.approx(52 - 47.5)
    assert rows["memorization gap at the last epoch"]["mean"] == -9
    assert rows["individual noise learned (share)"]["mean"] == pytest.approx(-0.3)
    assert rows["individual noise, low minus high (share)"]["mean"] == pytest.approx(0.25)
    assert "draws" in primary["varies"]


def test_accuracies_at_equal_gaps():
    run = made_run("cross-entropy", 1, [40, 50, 60], None, [0, 100, 100])
    assert quantities.accuracies_at_equal_gaps(run) == np.mean([42, 43, 44, 45])
    run = made_run("cross-entropy", 1, [40, 50, 60], None, [0, 30, 49])
    assert quantities.accuracies_at_equal_gaps(run) is None


def test_the_rise_of_the_gap_counts_not_its_level():
    run = made_run("cross-entropy", 1, [40, 50, 60], None, [12, 21, 23])
    assert quantities.before_memorization(run) == 50


def test_bands_are_compared_at_equal_memorization():
    distilled = made_run("self-distillation", 1, [40, 50, 60], None, [0, 1, 2], 0.7)
    plain = made_run("cross-entropy", 1, [40, 50, 60], None, [0, 1, 2])
    plain["memorization"]["curves"]["softmax_individual"] = [0.1, 0.6, 1.0]
    outputs = plain["frequency"]["probe"]["outputs"]
    plain["frequency"]["probe"]["outputs"] = {
        **outputs,
        "individual_low": [[0.2], [0.7], [1.0]],
        "individual_high": [[0.1], [0.6], [1.0]],
    }
    assert quantities.band_difference_beyond(distilled, plain) == pytest.approx(0.25 - 0.1)


def test_which_band_is_learned_first():
    run = made_run("cross-entropy", 1, [40, 50, 45], None, [0, 1, 2])
    assert quantities.epochs_ahead(run, "individual") == 0  # both reach it in the first epoch
    assert quantities.epochs_ahead(run, "clean") is None  # neither reaches it
    outputs = run["frequency"]["probe"]["outputs"]
    outputs["individual_low"], outputs["individual_high"] = (
        [[0.1], [0.3], [0.5]],
        [[0], [0.2], [0.3]],
    )
    # 0.25 is reached 3/4 on the way from epoch 1 to 2, and half way from epoch 2 to 3.
    assert quantities.epochs_ahead(run, "individual") == pytest.approx(2.5 - 1.75)
    outputs["individual_low"] = [[None]] * 3
    assert quantities.epochs_ahead(run, "individual") is None


def test_holm_over_the_noises():
    histories = [made_history("pair", 2.0), made_history("symmetric", 9.0)]
    rows = answer.answer(histories)
    pair, symmetric = (rows_by_quantity(rows, n)[quantities.PRIMARY] for n in ("pair", "symmetric"))
    assert symmetric["p_holm"] == pytest.approx(2 * symmetric["p"])
    assert pair["p_holm"] == pytest.approx(pair["p"])
    assert rows_by_quantity(rows, "pair")["both stopped early"]["p_holm"] is None


def test_holm_by_hand():
    assert answer.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert answer.holm([0.5, None, 0.9]) == [1.0, None, 1.0]
    assert answer.holm([]) == []


def test_one_draw_has_no_interval():
    history = made_history("pair", 2.0)
    history["runs"] = history["runs"][:2]
    row = rows_by_quantity(answer.answer([history]), "pair")[quantities.PRIMARY]
    assert (row["n"], row["low"], row["p"], row["p_holm"]) == (1, None, None, None)


def test_the_answer_needs_both_losses_and_memorization():
    history = made_history("pair", 2.0)
    history["runs"][0]["memorization"] = None
    with pytest.raises(UserError, match=r"run frequency\.py"):
        answer.answer([history])
    history["runs"] = [run for run in history["runs"] if run["loss"] != "cross-entropy"]
    with pytest.raises(UserError, match="cross-entropy"):
        answer.answer([history])


@pytest.fixture
def two_draws(tmp_path, monkeypatch, script):
    """Two draws of a data set, each with a run of both losses, filtered."""
    monkeypatch.chdir(tmp_path)
    for seed in (1, 2):
        path = Path(f"data/small-seed{seed}.npz")
        write_dataset(path, make_dataset(seed=seed, val=12))
        for dis in (0, 1):
            flags = [f"--data={path}", f"--dis={dis}", f"--seed={seed}", "--epochs=3"]
            assert script("train", *SMALL_RUN, *flags)[0] == 0
    assert script("frequency")[0] == 0
    return tmp_path


@pytest.mark.slow
def test_draws_are_one_study(two_draws, script):
    sources = ["runs/small-seed1", "runs/small-seed2"]
    assert script("collect_history", *sources, "--out", "all/history.json")[0] == 0
    history = json.loads(Path("all/history.json").read_text())
    assert history["data"]["seeds"] == [1, 2] and history["data"]["name"] == "small"
    deltas = {tuple(run["frequency"]["probe"]["delta"]) for run in history["runs"]}
    assert len(deltas) == 1
    rows = statistics.summarize(history)
    accuracy = next(r for r in rows if r["stop"] == "last" and r["loss"] == "cross-entropy")
    finals = [
        run["history"]["test_accuracy"][-1]
        for run in history["runs"]
        if run["loss"] == "cross-entropy"
    ]
    assert accuracy["n"] == 2 and accuracy["mean"] == pytest.approx(np.mean(finals))
    assert "draws" in accuracy["varies"]
    status, out, _ = script("collect_history", "--answer", "all/history.json", "--out", "a.json")
    assert status == 0 and "memorization gap at the last epoch" in out
    assert json.loads(Path("a.json").read_text())["rows"]
    assert script("plot", "all/history.json")[0] == 0
    assert Path("figures/overview.png").exists() and Path("figures/learned_parts.png").exists()


@pytest.mark.slow
def test_a_study_can_be_collected_in_steps(two_draws, script):
    assert script("collect_history", "runs", "--out", "whole.json")[0] == 0
    assert script("collect_history", "runs/small-seed1", "--out", "one.json")[0] == 0
    steps = ["one.json", "runs/small-seed2", "--out", "two.json"]
    assert script("collect_history", *steps)[0] == 0
    assert json.loads(Path("whole.json").read_text()) == json.loads(Path("two.json").read_text())


@pytest.mark.slow
def test_rounded_histories_stay_close(two_draws, script):
    assert script("collect_history", "--runs", "runs/small-seed1", "--out", "whole.json")[0] == 0
    flags = ["--runs", "runs/small-seed1", "--out", "short.json", "--digits", 5]
    assert script("collect_history", *flags)[0] == 0
    whole, short = (history_file.read_history_file(Path(p)) for p in ("whole.json", "short.json"))
    for exact, rounded in zip(whole["runs"], short["runs"], strict=True):
        for name, curve in exact["memorization"]["curves"].items():
            pair = np.array([rounded["memorization"]["curves"][name], curve], float)  # None: NaN
            np.testing.assert_allclose(*pair, rtol=1e-4)
    assert Path("short.json").stat().st_size < Path("whole.json").stat().st_size / 3


@pytest.mark.slow
def test_other_differences_than_the_seed_are_refused(two_draws, script, refused):
    other = make_dataset(seed=3)
    other.meta["noise"] = "symmetric"
    write_dataset(Path("data/other.npz"), other)
    assert script("train", *SMALL_RUN, "--data=data/other.npz", "--epochs=1")[0] == 0
    assert "differ in noise" in refused("collect_history")
