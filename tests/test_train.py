"""train.py: schedule, statistics, exact resumption, refusals."""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL_RUN, make_dataset
from torch import nn

import data
import runs
import train

ROOT = Path(__file__).parent.parent
RUN = Path("runs/small/dis1-small_cnn-seed0")
# Wall-clock times are all that may differ between two equal runs.
TIMES = ("seconds", "images_per_second")


def history(run):
    records, note = runs.read_history(run)
    assert note == ""
    return [{k: v for k, v in record.items() if k not in TIMES} for record in records]


def test_learning_rate_is_one_cosine_from_the_peak_to_zero():
    assert train.learning_rate(0, 100, 0.2) == 0.2
    assert train.learning_rate(50, 100, 0.2) == pytest.approx(0.1)
    assert train.learning_rate(100, 100, 0.2) == pytest.approx(0, abs=1e-15)
    rates = [train.learning_rate(step, 100, 0.2) for step in range(101)]
    assert rates == sorted(rates, reverse=True) and rates[99] > 0
    expected = 0.1 * (1 + math.cos(math.pi * 17 / 100))
    assert rates[17] == pytest.approx(expected)


def test_learning_rate_follows_the_step(monkeypatch, workplace):
    seen = []
    step = torch.optim.SGD.step

    def spy(self, *args, **kwargs):
        seen.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    train.main([*SMALL_RUN, "--epochs", "3"])
    assert seen == [train.learning_rate(k, 12, 0.05) for k in range(12)]  # 60 images, batch 16
    assert [r["lr"] for r in history(Path("runs/small/dis0-small_cnn-seed0"))] == seen[::4]


def test_randomness_is_a_function_of_seed_and_epoch():
    def draws(seed, epoch):
        generator = train.seed_epoch(seed, epoch, torch.device("cpu"))
        return torch.rand(3).tolist() + torch.rand(3, generator=generator).tolist()

    assert draws(3, 7) == draws(3, 7)
    assert len({tuple(draws(s, e)) for s in range(5) for e in range(5)}) == 25
    one = draws(0, 1)
    assert one[:3] != one[3:]


@pytest.mark.parametrize("dis", [0, 1])
def test_statistics_of_an_epoch_against_a_slow_reference(dis):
    dataset = make_dataset(train=50)
    images, labels, clean = (
        torch.from_numpy(a)
        for a in (dataset.train_images, dataset.train_labels, dataset.clean_labels)
    )
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    logits = model(data.normalize(images).contiguous()).detach().double().numpy()
    # A step this small leaves the float32 weights as they are.
    args = argparse.Namespace(seed=0, batch_size=16, augment=False, epochs=2, lr=1e-30, dis=dis)
    optimizer = torch.optim.SGD(model.parameters(), 1e-30)
    found = train.train_epoch(model, optimizer, [images, labels, clean], args, 1)

    y, true = labels.numpy(), clean.numpy()
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    prediction = logits.argmax(1)
    plain = -log_p[np.arange(50), y]
    order = torch.randperm(50, generator=train.seed_epoch(0, 1, torch.device("cpu"))).numpy()
    parts = np.split(order, [16, 32, 48])
    agreements = [np.mean(prediction[part] == y[part]) for part in parts]
    objective = plain.mean()
    if dis:
        own = -log_p[np.arange(50), prediction]
        objective = sum(
            ((1 - a) * plain[part] + a * own[part]).sum()
            for a, part in zip(agreements, parts, strict=True)
        )
        objective /= 50
    assert found["train_objective"] == pytest.approx(objective, rel=1e-5)
    assert found["train_cross_entropy"] == pytest.approx(plain.mean(), rel=1e-5)
    assert found["train_accuracy"] == pytest.approx(100 * np.mean(prediction == y))
    assert found["train_clean_accuracy"] == pytest.approx(100 * np.mean(prediction == true))
    assert found["memorized"] == pytest.approx(100 * np.mean((prediction == y)[y != true]))
    if dis:
        expected = np.average(agreements, weights=[len(part) for part in parts])
        assert found["agreement"] == pytest.approx(expected, rel=1e-6)
    else:
        assert found["agreement"] is None


def test_what_a_run_leaves_on_disk(trained):
    dataset = data.read_dataset(trained / "data/small.npz")
    for dis, name in runs.LOSS_NAMES.items():
        run = trained / f"runs/small/dis{dis}-small_cnn-seed1"
        config = runs.read_config(run)
        assert config["loss"] == name and config["flags"]["lr"] == 0.05
        assert config["data"]["digest"] == dataset.sha256
        assert config["versions"]["torch"] == torch.__version__ and "CPU" in config["device"]
        records = runs.read_history(run)[0]
        logits = runs.read_logits(run)
        assert [r["epoch"] for r in records] == [1, 2, 3] and logits.shape == (3, 40, 4)
        for record, outputs in zip(records, logits, strict=True):
            # Test loss and accuracy are plain, for both losses.
            z = np.asarray(outputs, np.float64)
            log_p = z - np.log(np.exp(z).sum(1, keepdims=True))
            loss = -log_p[np.arange(40), dataset.test_labels].mean()
            assert record["test_cross_entropy"] == pytest.approx(loss, rel=1e-5)
            accuracy = 100 * np.mean(z.argmax(1) == dataset.test_labels)
            assert record["test_accuracy"] == pytest.approx(accuracy)
            assert record["seconds"] > 0 and record["images_per_second"] > 0


def test_the_last_logits_are_those_of_the_checkpoint(trained):
    run = trained / "runs/small/dis1-small_cnn-seed0"
    model = train.small_cnn(4)
    model.load_state_dict(runs.read_checkpoint(run, "cpu")["model"])
    dataset = data.read_dataset(trained / "data/small.npz")
    model.eval()
    with torch.no_grad():
        logits = model(data.normalize(torch.from_numpy(dataset.test_images)))
    np.testing.assert_allclose(logits.numpy(), runs.read_logits(run)[-1], rtol=1e-4, atol=1e-5)


def test_both_losses_see_the_same_start_and_order(workplace):
    starts = []
    for dis in (0, 1):
        train.main([*SMALL_RUN, f"--dis={dis}", "--epochs=1", "--lr=1e-30", "--weight-decay=0"])
        starts.append(runs.read_logits(Path(f"runs/small/dis{dis}-small_cnn-seed0"))[0])
    np.testing.assert_array_equal(*starts)


class Stop(KeyboardInterrupt):
    """Ctrl-C at a chosen place."""


# Before an epoch's first byte is written, between its three writes, and after the last.
PLACES = ["append_logits", "append_history", "write_checkpoint", "after"]


@pytest.mark.parametrize("model", ["small_cnn", "shake_resnet"])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_stopping_and_resuming_equals_never_having_stopped(
    workplace, monkeypatch, script, model, place, epoch
):
    flags = [*SMALL_RUN, "--dis=1", "--epochs=5", f"--model={model}", "--depth=8", "--width=4"]
    assert script("train", *flags, "--run=whole")[0] == 0
    calls = []

    def stop_at(name):
        original = getattr(runs, name)

        def stopping(*args):
            calls.append(name)
            first = 1 if name == "write_checkpoint" else 0  # the start's own checkpoint
            if calls.count(name) == epoch + first and place == name:
                raise Stop
            original(*args)
            if calls.count(name) == epoch + first and place == "after":
                raise Stop

        monkeypatch.setattr(runs, name, stopping)

    stop_at("write_checkpoint" if place == "after" else place)
    status, _, err = script("train", *flags, "--run=stopped")
    assert status == 130 and "--resume" in err and err.count("\n") == 1
    monkeypatch.undo()
    monkeypatch.chdir(workplace)
    assert script("train", *flags, "--run=stopped", "--resume")[0] == 0
    whole, stopped = Path("runs/small/whole"), Path("runs/small/stopped")
    assert history(stopped) == history(whole) and len(history(whole)) == 5
    assert (stopped / "logits.npy").read_bytes() == (whole / "logits.npy").read_bytes()


def test_ctrl_c_in_the_middle_of_an_epoch(workplace):
    data.write_dataset(Path("data/small.npz"), make_dataset(train=2000, test=40))
    flags = [*SMALL_RUN, "--epochs=3", "--dis=1"]
    command = [sys.executable, str(ROOT / "train.py"), *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    first = process.stdout.readline()
    assert "cpu" in first.lower() and "self-distillation" in first
    process.stdout.readline()
    time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.count("\n") == 1 and "--resume" in err
    assert 1 <= len(history(RUN)) < 3
    assert train.main([*flags, "--resume"]) == 0
    assert train.main([*flags, "--run=whole"]) == 0
    assert history(RUN) == history(Path("runs/small/whole"))


def test_resuming_a_complete_run_changes_nothing(study, script):
    run = Path("runs/small/dis1-small_cnn-seed0")
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    assert script("train", *SMALL_RUN, "--dis=1", "--epochs=3", "--resume")[0] == 0
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


def test_an_existing_run_is_refused_and_overwrite_starts_again(study, script, refused):
    run = Path("runs/small/dis0-small_cnn-seed0")
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    flags = [*SMALL_RUN, "--epochs=2"]
    message = refused("train", *flags)
    assert "--resume" in message and "--overwrite" in message
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before
    (run / "frequency.json").write_text("{}")
    assert script("train", *flags, "--overwrite")[0] == 0
    assert len(history(run)) == 2 and not (run / "frequency.json").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--depth", "25"], ["--depth", "6n + 2"]),
        (["--width", "10"], ["--width", "multiple of 4"]),
        (["--epochs", "0"], ["--epochs"]),
        (["--batch-size", "0"], ["--batch-size"]),
        (["--lr", "0"], ["--lr"]),
        (["--lr", "fast"], ["--lr", "fast"]),
        (["--lr", "nan"], ["--lr"]),
        (["--weight-decay", "-1"], ["--weight-decay"]),
        (["--seed", "-1"], ["--seed"]),
        (["--dis", "2"], ["--dis"]),
        (["--model", "large"], ["--model", "small_cnn"]),
        (["--data", "nowhere.npz"], ["nowhere.npz", "generate.py"]),
        (["--resume"], ["--resume", "checkpoint.pt"]),
        (["--resume", "--overwrite"], ["--resume", "--overwrite"]),
    ],
)
def test_wrong_flags_are_refused(refused, workplace, flags, words):
    message = refused("train", *SMALL_RUN, *flags)
    assert all(word in message for word in words)
    assert not (workplace / "runs").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_without_cuda_is_refused(refused, workplace):
    assert "--device auto" in refused("train", *SMALL_RUN, "--device", "cuda")
    assert not (workplace / "runs").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_training_on_cuda(workplace, script):
    flags = [*SMALL_RUN, "--device=cuda", "--model=shake_resnet", "--depth=8", "--width=4"]
    status, out, _ = script("train", *flags, "--dis=1", "--epochs=2", "--run=a")
    assert status == 0 and torch.cuda.get_device_name() in out
    assert len(history(Path("runs/small/a"))) == 2


@pytest.mark.parametrize("flag", ["--lr=0.1", "--batch-size=8", "--epochs=4", "--no-augment"])
def test_resuming_with_other_settings_is_refused(study, refused, flag):
    before = (study / RUN / "history.jsonl").read_bytes()
    message = refused("train", *SMALL_RUN, "--dis=1", "--epochs=3", "--resume", flag)
    assert flag.strip("-").split("=")[0].replace("no-", "").replace("-", "_") in message
    assert (study / RUN / "history.jsonl").read_bytes() == before


def test_resuming_on_other_data_is_refused(study, refused):
    data.write_dataset(Path("data/small.npz"), make_dataset(seed=1))
    assert "data_sha256" in refused("train", *SMALL_RUN, "--dis=1", "--epochs=3", "--resume")


def test_damaged_checkpoint_is_refused(study, refused):
    raw = (RUN / "checkpoint.pt").read_bytes()
    (RUN / "checkpoint.pt").write_bytes(raw[: len(raw) // 2])
    message = refused("train", *SMALL_RUN, "--dis=1", "--epochs=3", "--resume")
    assert "checkpoint.pt" in message and "--overwrite" in message


def test_images_that_the_network_cannot_take(refused, workplace):
    data.write_dataset(Path("data/small.npz"), make_dataset(size=10))
    assert "small_cnn" in refused("train", *SMALL_RUN, "--model=shake_resnet", "--depth=8")
    data.write_dataset(Path("data/small.npz"), make_dataset(size=4))
    assert "8x8" in refused("train", *SMALL_RUN)


def test_a_loss_that_is_not_finite_stops_the_run(workplace, script, monkeypatch):
    calls = []

    def explode(logits, labels):
        calls.append(1)
        return (math.inf if len(calls) == 6 else 1) * nn.functional.cross_entropy(logits, labels)

    monkeypatch.setattr(train, "cross_entropy", explode)
    status, _, err = script("train", *SMALL_RUN, "--epochs=3", "--run=a")
    # 60 images are 4 steps an epoch; the 5th call is the first epoch's test loss.
    assert status == 1 and err.count("\n") == 1
    assert "epoch 2, step 1:" in err and "--lr" in err and "checkpoint" in err
    assert runs.read_checkpoint(Path("runs/small/a"), "cpu")["epoch"] == 1
    assert len(history(Path("runs/small/a"))) == 1


def test_a_learning_rate_that_diverges_ends_with_status_1(workplace, script):
    status, _, err = script("train", *SMALL_RUN, "--epochs=3", "--lr=1e30", "--run=a")
    assert status == 1 and "not finite" in err
    assert runs.read_checkpoint(Path("runs/small/a"), "cpu")["epoch"] == 0


def test_checkpoint_holds_tensors_and_plain_values_only(trained):
    def walk(value):
        if isinstance(value, dict):
            for key, item in value.items():
                assert type(key) in (str, int)
                walk(item)
        elif isinstance(value, (list, tuple)):
            for item in value:
                walk(item)
        else:
            assert type(value) in (torch.Tensor, int, float, str, bool, type(None)), type(value)

    for run in runs.find_runs([trained / "runs"]):
        content = runs.read_checkpoint(run, "cpu")
        walk({k: dict(v) if k == "model" else v for k, v in content.items()})
        assert json.dumps(content["settings"])


def test_every_image_size_without_wrong_labels(workplace, script):
    clean = make_dataset(size=12)
    clean.train_labels[:] = clean.clean_labels
    data.write_dataset(Path("data/small.npz"), clean)
    assert script("train", *SMALL_RUN, "--epochs=1", "--run=a")[0] == 0
    assert history(Path("runs/small/a"))[0]["memorized"] is None
