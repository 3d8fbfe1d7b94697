"""--teacher previous-epochs: its names in runs, tables and figures, its flags and refusals."""

import json
from pathlib import Path

import pytest
from helpers import SMALL_RUN

from analysis.curves import group_by_loss
from common.flags import recorded
from common.run_folder import read_config
from losses import SELF_DISTILLATION, Loss
from plotting.style import loss_styles

RUNS = Path("runs/small")


@pytest.mark.parametrize(
    ("loss", "slug", "title"),
    [
        (
            Loss(SELF_DISTILLATION, "previous-epochs", soft=True, momentum=0.9),
            "dis1-previous-epochs-momentum0.9-soft",
            "self-distillation, previous epochs, momentum 0.9, soft",
        ),
        (
            Loss(SELF_DISTILLATION, "previous-epochs", weight=0.9, momentum=0.0),
            "dis1-previous-epochs-momentum0-weight0.9",
            "self-distillation, previous epochs, momentum 0, weight 0.9",
        ),
    ],
)
def test_names(loss, slug, title):
    assert (loss.slug, loss.title) == (slug, title)


@pytest.mark.slow
def test_it_is_named_in_runs_tables_and_figures(script, workplace):
    for flags in (["--dis=1", "--teacher=previous-epochs", "--momentum=0.8"], ["--dis=0"]):
        assert script("train", *SMALL_RUN, *flags, "--epochs=2")[0] == 0
    status, out, _ = script("collect_history", "--out", "history.json")
    assert status == 0 and "self-distillation, previous epochs, momentum 0.8" in out
    plain, averaged = sorted(
        json.loads(Path("history.json").read_text())["runs"], key=lambda run: run["run"]
    )
    assert averaged["run"] == "dis1-previous-epochs-momentum0.8-small_cnn-seed0"
    assert averaged["settings"]["momentum"] == 0.8 and "momentum" not in plain["settings"]
    assert read_config(RUNS / plain["run"])["flags"]["momentum"] is None
    groups = group_by_loss({"runs": [plain, averaged]})
    assert set(loss_styles(groups)) == {plain["loss"], averaged["loss"]}


def test_recorded_flags_stay_as_they_were():
    old = {"dis": 1, "teacher": "batch", "soft": False, "weight": None, "lr": 0.2, "seed": 0}
    assert recorded({**old, "loss": "self-distillation", "data": "a.npz"}) == old
    assert recorded({**old, "momentum": None}) == old
    assert recorded({**old, "momentum": 0.0}) == {**old, "momentum": 0.0}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--dis=1", "--teacher=previous-epochs"], ["previous-epochs", "--momentum"]),
        (["--dis=1", "--teacher=previous-epochs", "--momentum=1"], ["--momentum below 1"]),
        (["--dis=1", "--teacher=previous-epochs", "--momentum=-0.1"], ["--momentum", "0 to 1"]),
        (["--dis=1", "--teacher=previous-epochs", "--momentum=nan"], ["--momentum", "0 to 1"]),
        (["--dis=1", "--teacher=previous-epoch", "--momentum=0.9"], ["--teacher previous-epochs"]),
        (["--dis=1", "--momentum=0.9"], ["--momentum", "--teacher previous-epochs"]),
        (["--dis=0", "--momentum=0.9"], ["--momentum", "--dis=1"]),
        (["--dis=0", "--teacher=previous-epochs", "--momentum=0.9"], ["--teacher", "--dis=1"]),
    ],
)
def test_flags_that_do_not_fit_are_refused(refused, workplace, flags, words):
    message = refused("train", *SMALL_RUN, *flags)
    assert all(word in message for word in words), message
    assert not RUNS.exists()
