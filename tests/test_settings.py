"""train.py's flags: the loss they choose, the names they give, what is refused, config.json."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from helpers import SMALL_RUN, folder_bytes, history, make_dataset

import losses
import train
from common import flags, run_folder
from common.errors import UserError
from dataset.data_file import write_dataset
from losses import Loss
from training.settings import RunSettings

DISTILLED = Path("runs/small/dis1-small_cnn-seed0")
ALL_FLAGS = [
    "--loss",
    "self-distillation",
    "--teacher",
    "previous-epoch",
    "--soft",
    "--weight",
    "0.5",
    "--data",
    "d/x.npz",
    "--model",
    "small_cnn",
    "--depth",
    "14",
    "--width",
    "8",
    "--epochs",
    "7",
    "--batch-size",
    "9",
    "--lr",
    "0.3",
    "--weight-decay",
    "0.01",
    "--ema-decay",
    "0.9",
    "--no-augment",
    "--seed",
    "4",
    "--sample-size",
    "11",
    "--device",
    "cpu",
    "--no-amp",
    "--compile",
    "--cuda-graphs",
    "--runs",
    "elsewhere",
    "--run",
    "a",
    "--resume",
    "auto",
    "--evaluate",
    "elsewhere/x/a",
]


def settings_of(*words) -> RunSettings:
    return train.parse_args(words).settings


# What the loss is


def test_loss_by_name_is_that_of_dis():
    assert settings_of("--loss", "cross-entropy") == settings_of("--dis=0") == settings_of()
    distilled = settings_of("--loss", "self-distillation")
    for contradiction in (
        ["--dis=0", "--loss=self-distillation"],
        ["--dis=1", "--loss=cross-entropy"],
    ):
        with pytest.raises(SystemExit):
            settings_of(*contradiction)
    assert distilled == settings_of("--dis=1") == settings_of("--dis=1", "--loss=self-distillation")
    assert distilled.loss == "self-distillation" and distilled.flags()["dis"] == 1


def test_loss_that_is_added_to_the_dict_can_be_trained(workplace, script, monkeypatch):
    calls = []

    def squared_error(logits, labels):
        calls.append(logits.shape)
        target = torch.nn.functional.one_hot(labels, logits.shape[1])
        return (logits.softmax(dim=1) - target).square().mean()

    monkeypatch.setitem(losses.LOSSES, "squared-error", squared_error)
    status, out, _ = script("train", *SMALL_RUN, "--epochs=1", "--loss=squared-error")
    run = Path("runs/small/squared-error-small_cnn-seed0")
    assert status == 0 and f"{run}: squared-error on CPU" in out
    assert calls == [(16, 4)] * 3 + [(12, 4)]
    assert run_folder.read_config(run)["loss"] == "squared-error"
    (record,) = history(run)
    assert 0 < record["train_objective"] < 0.5 < record["train_cross_entropy"]
    assert record["agreement"] is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"teacher": "uniform"}, "--dis=1"),
        ({"soft": True}, "--dis=1"),
        ({"weight": 0.0}, "--dis=1"),
        ({"name": "self-distillation", "teacher": "uniform"}, "--weight"),
        ({"name": "self-distillation", "teacher": "uniform", "weight": 0.1, "soft": True}, "drop"),
    ],
)
def test_loss_refuses_flags_that_do_not_fit(values, words):
    with pytest.raises(UserError, match=words):
        Loss(**values)


NAMES = {
    "--dis=0 --model=small_cnn": ("dis0-small_cnn-seed2", "cross-entropy"),
    "--dis=1": ("dis1-shake26-2x32d-seed2", "self-distillation"),
    "--dis=1 --depth=14 --width=8": ("dis1-shake14-2x8d-seed2", "self-distillation"),
    "--dis=1 --teacher=previous-epoch": (
        "dis1-previous-epoch-shake26-2x32d-seed2",
        "self-distillation, previous epoch",
    ),
    "--dis=1 --teacher=previous-epoch --soft --weight=0.5": (
        "dis1-previous-epoch-soft-weight0.5-shake26-2x32d-seed2",
        "self-distillation, previous epoch, soft, weight 0.5",
    ),
    "--dis=1 --soft": ("dis1-soft-shake26-2x32d-seed2", "self-distillation, soft"),
    "--dis=1 --weight=0.2": ("dis1-weight0.2-shake26-2x32d-seed2", "bootstrapping, weight 0.2"),
    "--dis=1 --teacher=uniform --weight=0.1": (
        "dis1-uniform-weight0.1-shake26-2x32d-seed2",
        "label smoothing, weight 0.1",
    ),
}


@pytest.mark.parametrize("words", NAMES)
def test_names_of_runs_and_losses(words):
    settings = settings_of(*words.split(), "--seed=2", "--data=data/x.npz")
    folder, title = NAMES[words]
    assert settings.folder == Path("runs/x") / folder
    assert settings.loss_function.title == title
    named = replace(settings, run="mine", runs=Path("elsewhere"))
    assert named.folder == Path("elsewhere/x/mine")


# config.json


@pytest.mark.parametrize("words", [[], ALL_FLAGS], ids=["defaults", "all flags"])
def test_settings_survive_config_json(words):
    settings = settings_of(*words)
    on_disk = json.loads(json.dumps(settings.flags(), allow_nan=False))
    assert RunSettings.from_flags(on_disk) == settings
    assert on_disk["sample_size"] == settings.sample_size


def test_all_flags_are_other_than_their_defaults():
    settings, default = settings_of(*ALL_FLAGS), settings_of()
    same = {f.name for f in fields(RunSettings) if getattr(settings, f.name) == f.default}
    assert same == {"overwrite", "momentum"}  # one excludes --resume, one needs another teacher
    assert settings_of("--overwrite") == replace(default, overwrite=True)


def test_every_flag_has_one_place_in_the_groups():
    names = set(RunSettings().flags())
    assert set(flags.PLACE + flags.EXECUTION + flags.LOSS_AND_SEED) <= names
    assert names - set(flags.fixed_on_resume(RunSettings().flags())) == {
        *("data", "runs", "run", "resume", "overwrite", "device", "compile", "evaluate"),
        *("cuda_graphs", "momentum", "ema_decay"),  # left out at its default, which older runs have
    }
    assert set(flags.fixed_in_study(RunSettings().flags())) == {
        *("model", "depth", "width", "epochs", "batch_size", "lr", "weight_decay", "augment"),
        *("sample_size", "amp"),
    }


def without_loss_flag(run: Path) -> None:
    """Make a run one that was written before `loss` was a flag: config and checkpoint."""
    config = run_folder.read_config(run)
    del config["flags"]["loss"]
    run_folder.write_config(run, config)
    for name in ("checkpoint.pt", "checkpoint.prev.pt"):
        content = torch.load(run / name, weights_only=True)
        del content["settings"]["loss"]
        torch.save(content, run / name)


@pytest.mark.parametrize("dis", [0, 1])
def test_run_from_before_loss_was_a_flag_is_read_and_resumed(study, script, refused, dis):
    run = Path(f"runs/small/dis{dis}-small_cnn-seed0")
    before = folder_bytes(run)
    last = history(run)[-1]
    without_loss_flag(run)
    settings = RunSettings.from_flags(run_folder.read_config(run)["flags"])
    assert settings.loss == ("cross-entropy", "self-distillation")[dis] and settings.folder == run
    status, out, _ = script("train", "--evaluate", run, "--device=cpu")
    assert status == 0 and f"test accuracy {last['test_accuracy']:.2f}%" in out
    # Go on from the checkpoint before the last.
    (run / "checkpoint.prev.pt").replace(run / "checkpoint.pt")
    flags = [*SMALL_RUN, "--epochs=3", "--resume", f"--run={run.name}"]
    assert "dis = " in refused("train", *flags, f"--dis={1 - dis}")
    assert script("train", *flags, f"--dis={dis}")[0] == 0
    assert history(run)[-1] == last
    for name in ("logits.npy", "train_logits.npy"):
        assert (run / name).read_bytes() == before[name]


# What is refused


WRONG_FLAGS = [
    ("--model shake_resnet --depth 25", ["--depth", "6n + 2"]),
    ("--model shake_resnet --width 10", ["--width", "multiple of 4"]),
    ("--epochs 0", ["--epochs"]),
    ("--batch-size 0", ["--batch-size"]),
    ("--lr 0", ["--lr"]),
    ("--lr fast", ["--lr", "fast"]),
    ("--lr nan", ["--lr"]),
    ("--weight-decay -1", ["--weight-decay"]),
    ("--seed -1", ["--seed"]),
    ("--dis 2", ["--dis"]),
    ("--sample-size 0", ["--sample-size"]),
    ("--sample-size 61", ["--sample-size", "60"]),
    ("--model large", ["--model", "small_cnn"]),
    ("--data nowhere.npz", ["nowhere.npz", "generate.py"]),
    ("--resume", ["--resume", "checkpoint.pt"]),
    ("--resume always", ["--resume", "auto"]),
    ("--resume --overwrite", ["--resume", "--overwrite"]),
    ("--resume auto --overwrite", ["--resume", "--overwrite"]),
    ("--loss hinge", ["--loss", "cross-entropy", "self-distillation"]),
    ("--loss cross-entropy --dis=1", ["--loss", "--dis"]),
    ("--teacher=previous-epoch", ["--teacher", "--dis=1"]),
    ("--soft", ["--soft", "--dis=1"]),
    ("--weight=0.2", ["--weight", "--dis=1"]),
    ("--loss cross-entropy --weight=0.2", ["--weight"]),
    ("--dis=1 --weight=1.5", ["--weight", "0 to 1"]),
    ("--dis=1 --weight=nan", ["--weight"]),
    ("--dis=1 --teacher=uniform", ["uniform", "--weight"]),
    ("--dis=1 --teacher=uniform --weight=0.1 --soft", ["uniform", "--soft"]),
    ("--dis=1 --teacher=mine", ["--teacher", "previous-epoch"]),
]


@pytest.mark.parametrize(("flags", "words"), WRONG_FLAGS)
def test_wrong_flags_are_refused(refused, workplace, flags, words):
    message = refused("train", *SMALL_RUN, *flags.split())
    assert all(word in message for word in words), message
    assert not (workplace / "runs").exists()


def test_images_that_the_network_cannot_take_are_refused(refused, workplace):
    write_dataset(Path("data/small.npz"), make_dataset(size=10))
    assert "small_cnn" in refused("train", *SMALL_RUN, "--model=shake_resnet", "--depth=8")
    write_dataset(Path("data/small.npz"), make_dataset(size=4))
    assert "8x8" in refused("train", *SMALL_RUN)
    assert not (workplace / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_without_cuda_is_refused(refused, workplace):
    assert "--device auto" in refused("train", *SMALL_RUN, "--device", "cuda")
    assert not (workplace / "runs").exists()


@pytest.mark.skipif(torch.cpu._is_avx512_bf16_supported(), reason="this processor has bfloat16")
def test_bfloat16_is_refused_where_it_would_be_slow(refused, workplace):
    assert "--no-amp" in refused("train", *SMALL_RUN, "--amp")
