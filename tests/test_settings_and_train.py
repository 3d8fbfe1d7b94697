"""train.py: its flags, the names they give, what is refused, what a run leaves and prints."""

import json
import math
import re
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import LEARNING_EPOCHS, SHAKE, SMALL_RUN, equal, folder_bytes, history, make_dataset
from references import softmax

import train
from common import run_folder
from dataset.batches import normalize
from dataset.data_file import read_dataset, write_dataset
from losses import LOSSES, CrossEntropy
from models.small_cnn import small_cnn
from training import checkpoint
from training import run as training_run
from training.epoch import evaluate, learning_rate
from training.run import load_network
from training.settings import FREE_ON_RESUME, RunSettings

RUN = Path("runs/small/a")
KINDS = ("cross_entropy", "accuracy")
SHORT = [*SMALL_RUN, "--epochs=1", "--run=a"]
DISTILLED = Path("runs/small/dis1-seed0")
ALL_FLAGS = """
    --loss self-distillation --teacher previous-epoch --soft --weight 0.5 --data d/x.npz
    --depth 14 --width 8 --epochs 7 --batch-size 9 --lr 0.3 --weight-decay 0.01
    --ema-decay 0.9 --no-augment --seed 4 --sample-size 11 --device cpu --no-amp --compile
    --runs elsewhere --run a --resume auto
"""


def settings_of(words) -> RunSettings:
    return train.parse_args(words.split()).settings


# Flags and names

GCE, ELR = "generalized-cross-entropy", "early-learning-regularization"
DEFAULT = "shake26-2x32d"
NAMES = [
    ("--dis=0", f"dis0-{DEFAULT}", "cross-entropy"),
    ("--loss=cross-entropy", f"dis0-{DEFAULT}", "cross-entropy"),
    ("--model=small_cnn", "dis0-small_cnn", "cross-entropy"),
    ("--dis=1 --depth=14 --width=8", "dis1-shake14-2x8d", "self-distillation"),
    ("--loss=self-distillation", f"dis1-{DEFAULT}", "self-distillation"),
    ("--dis=1 --weight=0.2", f"dis1-weight0.2-{DEFAULT}", "bootstrapping, weight 0.2"),
    (
        "--dis=1 --teacher=previous-epoch --soft --weight=0.5",
        f"dis1-previous-epoch-soft-weight0.5-{DEFAULT}",
        "self-distillation, previous epoch, soft, weight 0.5",
    ),
    (
        "--dis=1 --teacher=uniform --weight=0.1",
        f"dis1-uniform-weight0.1-{DEFAULT}",
        "label smoothing, weight 0.1",
    ),
    (f"--loss={GCE} --q=0.5", f"{GCE}-q0.5-{DEFAULT}", "generalized cross-entropy, q 0.5"),
    (f"--loss={ELR}", f"{ELR}-{DEFAULT}", "early-learning regularization"),
    (
        "--ema-decay=0.99 --lr=0.02 --epochs=30 --no-augment --sample-size=100 --weight-decay=0 "
        "--batch-size=64",
        f"dis0-{DEFAULT}-ema0.99-epochs30-batch-size64-lr0.02-weight-decay0-no-augment-"
        "sample-size100",
        "cross-entropy",
    ),
    ("--device=cpu --compile", f"dis0-{DEFAULT}", "cross-entropy"),
    ("--amp", f"dis0-{DEFAULT}-amp", "cross-entropy"),
    ("--no-amp", f"dis0-{DEFAULT}-no-amp", "cross-entropy"),
]


@pytest.mark.parametrize(("words", "folder", "title"), NAMES, ids=[name[0] for name in NAMES])
def test_names_of_runs_and_losses(words, folder, title):
    settings = settings_of(f"{words} --seed=2 --data=data/x.npz")
    assert settings.folder == Path(f"runs/x/{folder}-seed2")
    assert settings.make_loss().title == title
    named = replace(settings, run="mine", runs=Path("elsewhere"))
    assert named.folder == Path("elsewhere/x/mine")


def test_every_flag_reaches_the_settings_and_config_json():
    settings = settings_of(ALL_FLAGS)
    same = {f.name for f in fields(RunSettings) if getattr(settings, f.name) == f.default}
    # Each of these excludes another flag.
    assert same == {"model", "overwrite", "evaluate"}
    assert settings_of("--model small_cnn").model == "small_cnn"
    assert settings_of("--overwrite").overwrite
    assert settings_of("--evaluate x").evaluate == Path("x")
    flags = settings.flags()
    assert json.loads(json.dumps(flags, allow_nan=False)) == flags
    assert (flags["data"], flags["teacher"], flags["weight"]) == ("d/x.npz", "previous-epoch", 0.5)
    assert set(settings.fixed) == set(flags) - set(FREE_ON_RESUME)


# What is refused: flags, words of the one line that says so. Nothing is written.
REFUSED = [
    ("--model shake_resnet --depth 25", "--depth 25 is not 6n"),
    ("--model small_cnn --width 64", "--depth and --width belong to --model shake_resnet"),
    ("--model large", "--model small_cnn"),
    ("--epochs 0", "--epochs an integer at least 1"),
    ("--lr 0", "--lr above 0"),
    ("--weight-decay -1", "--weight-decay at least 0"),
    ("--ema-decay 1", "--ema-decay below 1"),
    ("--seed -1", "--seed"),
    ("--sample-size 61", "--sample-size 60"),
    ("--data nowhere.npz", "nowhere.npz generate.py --data"),
    ("--resume", "--resume checkpoint.pt leave it out"),
    ("--resume always", "--resume auto"),
    ("--resume --overwrite", "--resume not allowed with --overwrite"),
    ("--evaluate runs/a --resume", "--evaluate not allowed with --resume"),
    ("--evaluate nowhere", "nowhere train.py"),
    ("--run a/b", "--run 'a/b' --runs"),
    ("--run ..", "--run"),
    ("--loss cross-entropy --dis=0", "--loss not allowed with --dis"),
    ("--loss hinge", "--loss cross-entropy self-distillation"),
    ("--loss cross-entropy --dis=1", "--loss not allowed with --dis"),
    ("--teacher=previous-epoch", "--teacher belongs to --loss self-distillation; use that"),
    ("--dis=1 --q=0.5", "--q --loss generalized-cross-entropy"),
    ("--loss generalized-cross-entropy --q=0", "--q above 0"),
    ("--loss early-learning-regularization --beta=1", "--beta below 1"),
    ("--dis=1 --weight=1.5", "--weight at most 1"),
    ("--dis=1 --teacher=uniform", "--teacher uniform add --weight 0.1"),
    ("--dis=1 --teacher=uniform --weight=0.1 --soft", "--teacher uniform drop --soft"),
    ("--dis=1 --teacher=mine", "--teacher previous-epoch"),
]
if not torch.cuda.is_available():
    REFUSED.append(("--device cuda", "--device auto"))
if not torch.cpu._is_avx512_bf16_supported():
    REFUSED.append(("--amp", "--no-amp"))


@pytest.mark.parametrize(("flags", "words"), REFUSED, ids=[flags for flags, _ in REFUSED])
def test_wrong_flags_are_refused(refused, workplace, flags, words):
    message = refused("train", *SMALL_RUN, *flags.split())
    assert all(word in message for word in words.split()), message
    assert not (workplace / "runs").exists()


def test_images_that_the_network_cannot_take_are_refused(refused, workplace):
    write_dataset(Path("data/small.npz"), make_dataset(size=10))
    words = [*SMALL_RUN, "--model=shake_resnet", "--depth=8"]
    assert "shake_resnet needs" in refused("train", *words)
    assert not (workplace / "runs").exists()


Missing = type("Missing", (RuntimeError,), {"__module__": "torch._inductor.exc"})
FAILURES = [
    (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        "CUDA out of memory; use a lower --batch-size or --width; the last checkpoint stays",
    ),
    (
        Missing("No working C++ compiler\nand twenty more lines"),
        "No working C++ compiler; install a C++ compiler, or leave --compile out",
    ),
]


@pytest.mark.parametrize(("error", "line"), FAILURES, ids=["memory", "compiler"])
def test_failures_of_torch_are_one_line(workplace, refused, monkeypatch, error, line):
    def fail(*_):
        raise error

    monkeypatch.setattr(training_run, "train", fail)
    assert refused("train", *SMALL_RUN).endswith(f": {line}\n")


# What a run leaves


def test_the_networks_of_the_study_learn_and_memorize(trained_study):
    for dis in (0, 1):
        records = history(trained_study / f"runs/small/dis{dis}-seed0")
        assert max(record["test_accuracy"] for record in records) > 60  # chance is 25
        assert max(record["sample_memorized"] for record in records) > 40
        assert records[-1]["train_cross_entropy"] < 0.7 * records[0]["train_cross_entropy"]


@pytest.mark.parametrize("dis", [0, 1])
def test_the_record_of_each_epoch_says_what_the_outputs_say(trained_study, dis):
    dataset = read_dataset(trained_study / "data/small.npz")
    run = trained_study / f"runs/small/dis{dis}-seed0"
    config, records = run_folder.read_config(run), run_folder.read_history(run)[0]
    assert config["loss"] == ("cross-entropy", "self-distillation")[dis]
    assert config["network"] == "small_cnn" and config["flags"]["lr"] == 0.02
    assert config["data"]["name"] == "small" and config["data"]["digest"] == dataset.sha256
    assert config["versions"]["torch"] == torch.__version__ and "CPU" in config["device"]
    index = run_folder.read_sample_indices(run)
    np.testing.assert_array_equal(index, np.arange(160))  # all of a small training set
    noisy, clean = dataset.train_labels, dataset.clean_labels
    wrong = noisy != clean
    outputs = [run_folder.read_outputs(run, name) for name in run_folder.LOGITS]
    assert [record["epoch"] for record in records] == list(range(1, LEARNING_EPOCHS + 1))
    for record, test, sample, val in zip(records, *outputs, strict=True):
        predicted = sample.argmax(1)
        expected = {
            "test_accuracy": test.argmax(1) == dataset.test_labels,
            "val_accuracy": val.argmax(1) == dataset.val_labels,
            "sample_accuracy": predicted == noisy,
            "sample_clean_accuracy": predicted == clean,
            "sample_memorized": (predicted == noisy)[wrong],
            "sample_clean_accuracy_right": (predicted == clean)[~wrong],
            "sample_clean_accuracy_wrong": (predicted == clean)[wrong],
        }
        for name, correct in expected.items():
            assert record[name] == pytest.approx(100 * correct.mean()), name
        # The test loss is plain cross-entropy for every loss.
        p = softmax(test)[np.arange(80), dataset.test_labels]
        assert record["test_cross_entropy"] == pytest.approx(-np.log(p).mean(), rel=1e-5)
        assert record["lr"] == learning_rate(record["epoch"] - 1, LEARNING_EPOCHS, 0.02)
        assert record["seconds"] > 0 and record["images_per_second"] > 0
        assert (record["agreement"] is None) == (dis == 0)


def test_last_outputs_are_those_of_the_checkpoint_in_eval_mode(trained_study):
    run, dataset = trained_study / DISTILLED, read_dataset(trained_study / "data/small.npz")
    model = small_cnn(4).eval()
    model.load_state_dict(checkpoint.read(run)["model"])
    images = (dataset.test_images, dataset.train_images, dataset.val_images)
    for name, split in zip(run_folder.LOGITS, images, strict=True):
        with torch.no_grad():
            expected = model(normalize(torch.from_numpy(split)))
        found = run_folder.read_outputs(run, name)[-1]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_sample_has_the_size_that_is_asked_for(workplace, script):
    assert script("train", *SHORT, "--sample-size=20")[0] == 0
    assert len(run_folder.read_sample_indices(RUN)) == 20
    assert run_folder.read_outputs(RUN, run_folder.SAMPLE_LOGITS).shape == (1, 20, 4)
    assert not (RUN / "val_logits.npy").exists() and history(RUN)[0]["val_accuracy"] is None


@pytest.mark.parametrize("train", [1, 33])
def test_one_image_and_a_last_batch_of_one(workplace, script, train):
    dataset = make_dataset(train=train, test=1, val=1)
    dataset.train_labels[:] = dataset.clean_labels
    write_dataset(Path("data/small.npz"), dataset)
    for flags in ([], SHAKE):
        status, _, err = script("train", *SHORT, *flags, "--overwrite")
        assert (status, err) == (0, "")
        assert history(RUN)[0]["sample_memorized"] is None  # without noise


def test_the_average_is_evaluated_and_kept_and_training_does_not_see_it(workplace, script):
    dataset, flags = make_dataset(val=20), [*SHORT, "--dis=1", "--teacher=previous-epoch"]
    write_dataset(Path("data/small.npz"), dataset)
    plain = RUN.with_name("plain")
    assert script("train", *flags, "--ema-decay=0.9")[0] == 0
    assert script("train", *flags, "--run=plain")[0] == 0
    assert run_folder.read_config(RUN)["network"] == "small_cnn, averaged weights, decay 0.9"
    content, other = checkpoint.read(RUN), checkpoint.read(plain)
    for part in ("model", "optimizer", "previous"):
        assert equal(content[part], other[part])
    assert other["average"] is None and int(content["average"]["n_averaged"]) == 4
    (record,), (expected,) = history(RUN), history(plain)
    for name in ("train_objective", "train_accuracy", "agreement", "lr"):
        assert record[name] == expected[name]
    for name in run_folder.LOGITS:
        assert not np.array_equal(*(run_folder.read_outputs(run, name) for run in (RUN, plain)))
    model, epoch = load_network(RUN, dataset, torch.device("cpu"))
    outputs = evaluate(model, torch.from_numpy(dataset.test_images))
    np.testing.assert_array_equal(outputs, run_folder.read_outputs(RUN, "logits.npy")[-1])
    assert epoch == 1
    accuracy = record["test_accuracy"]
    assert f"test accuracy {accuracy:.2f}%" in script("train", "--evaluate", RUN)[1]


# What a run says


def test_what_training_prints_fits_80_columns(workplace, script):
    status, out, err = script("train", *SMALL_RUN, "--epochs=2", "--run=a", "--dis=1")
    first, head, *epochs, last = out.splitlines()
    assert (status, err) == (0, "") and len(epochs) == 2
    assert re.fullmatch(rf"{RUN}: self-distillation on CPU .*, from epoch 1", first)
    assert "train (cross-entropy, accuracy) and val: on noisy labels" in head
    assert last == f"done: {RUN}" and all(len(line) <= 80 for line in out.splitlines())
    numbers = dict.fromkeys(("train_objective", "train_cross_entropy"), 2.345)
    numbers |= dict.fromkeys(("train_accuracy", "test_accuracy"), 99.9)
    numbers |= {
        "epoch": 300,
        "epochs": 300,
        "seconds": 99.9,
        "left": "1:59:59",
        "val": "val 99.9%, ",
    }
    assert len(training_run.EPOCH_LINE.format(**numbers)) <= 80
    for number, (line, record) in enumerate(zip(epochs, history(RUN), strict=True), start=1):
        shown = re.fullmatch(
            rf" +{number}/2 loss ([\d.]+), train ([\d.]+) ([\d.]+)%, "
            r"test ([\d.]+)%, [\d.]+ s, \d\d:\d\d left",
            line,
        )
        names = ["train_objective", *(f"train_{kind}" for kind in KINDS)]
        names += ["test_accuracy"]  # this data set has no held-out images
        for text, name in zip(shown.groups(), names, strict=True):
            assert float(text) == pytest.approx(record[name], abs=0.051), name


def test_amp_on_a_cpu_says_which_precision_is_faster(workplace, script, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(training_run, "compare_precisions", lambda *_: "this one")
    for flags, said in (["--amp"], 1), (["--no-amp", "--overwrite"], 0):
        assert script("train", *SHORT, *flags)[1].splitlines().count("this one") == said


def test_evaluation_of_a_run(study, script, refused):
    before = folder_bytes(DISTILLED)
    last = history(DISTILLED)[-1]
    words = ["--evaluate", DISTILLED, "--device=cpu"]
    status, out, err = script("train", *words)
    assert (status, err) == (0, "") and out.count("\n") == 1
    assert f"epoch {LEARNING_EPOCHS}, test accuracy {last['test_accuracy']:.2f}%" in out
    assert f"test loss {last['test_cross_entropy']:.4f}" in out
    # A data set that has moved is named with --data; another one is refused.
    Path("data/small.npz").rename("moved.npz")
    assert "--data" in refused("train", *words)
    assert script("train", *words, "--data=moved.npz")[1] == out
    write_dataset(Path("data/small.npz"), make_dataset(seed=1))
    assert "not trained on this data set; name its data set with --data" in refused("train", *words)
    assert folder_bytes(DISTILLED) == before


@pytest.mark.parametrize(
    "change", [{"model": "x"}, {"lr": "x"}, {"model": "shake_resnet"}, {"data": 3}], ids=str
)
def test_evaluation_of_a_run_whose_config_was_edited(study, refused, change):
    config = json.loads((DISTILLED / "config.json").read_text())
    config["flags"] |= change
    (DISTILLED / "config.json").write_text(json.dumps(config))
    assert str(DISTILLED) in refused("train", "--evaluate", DISTILLED, "--device=cpu")


class Exploding(CrossEntropy):
    """Infinite at its sixth call: 60 images are 4 steps an epoch."""

    name = full_name = "exploding"
    calls = 0

    def __call__(self, *batch):
        self.calls += 1
        return super().__call__(*batch) * (math.inf if self.calls == 6 else 1)


def test_loss_that_is_not_finite_stops_the_run(workplace, script, monkeypatch):
    monkeypatch.setitem(LOSSES, "exploding", Exploding)
    status, _, err = script("train", *SMALL_RUN, "--epochs=3", "--run=a", "--loss=exploding")
    assert status == 1 and err.count("\n") == 1
    assert "epoch 2, step 2:" in err and "--lr" in err and "checkpoint" in err
    assert checkpoint.read(RUN)["epoch"] == len(history(RUN)) == 1


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="--compile needs a C++ compiler on a CPU")
def test_compiled_steps_are_the_plain_ones(workplace, script):
    write_dataset(Path("data/small.npz"), make_dataset(train=40, test=16))
    flags = [*SMALL_RUN, "--epochs=1", "--dis=1"]  # three steps; the last one runs uncompiled
    assert script("train", *flags, "--run=plain")[0] == 0
    assert script("train", *flags, "--run=compiled", "--compile")[0] == 0
    plain, compiled = Path("runs/small/plain"), Path("runs/small/compiled")
    (record,), (other,) = history(plain), history(compiled)
    for key in record.keys() - {"sha256"}:
        expected = record[key]
        assert other[key] == (expected if expected is None else pytest.approx(expected, rel=1e-3))
