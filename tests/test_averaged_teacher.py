"""--teacher previous-epochs: the average against slow references, resume, two processes."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import PROGRAMS, SMALL_RUN, environment, history, make_dataset
from torch import nn

import training.run
from common.run_folder import LOGITS, read_config
from dataset.batches import normalize, training_batches
from dataset.data_file import write_dataset
from losses import SELF_DISTILLATION, Loss
from training import checkpoint
from training.epoch import learning_rate, seed_epoch, train_epoch
from training.settings import RunSettings

RUNS = Path("runs/small")
AVERAGED = ["--dis=1", "--teacher=previous-epochs", "--momentum=0.8"]


def average(distributions, momentum):
    """Temporal ensembling's Z / (1 - m^t) by its definition, in float64; (N, C) of a list."""
    total = np.zeros(np.shape(distributions[0]))
    for predicted in distributions:
        for row in range(len(total)):
            for label in range(total.shape[1]):
                new = (1 - momentum) * float(predicted[row][label])
                total[row, label] = momentum * total[row, label] + new
    return total / (1 - momentum ** len(distributions))


def loss_of(momentum, soft=True, weight=None):
    return Loss(SELF_DISTILLATION, "previous-epochs", soft, weight, momentum)


def random_outputs(count, seed=0):
    """Logits of `count` epochs, (7, 3) each."""
    generator = torch.Generator().manual_seed(seed)
    return [3 * torch.randn(7, 3, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("momentum", [0, 0.3, 0.7, 0.9, 0.999])
def test_the_average_against_a_loop(momentum):
    loss, previous, distributions = loss_of(momentum), None, []
    for epoch, outputs in enumerate(random_outputs(12), 1):
        distributions.append(outputs.softmax(dim=1))
        previous = loss.remember(previous, loss.predict(outputs), epoch)
        expected = average(distributions, momentum)
        np.testing.assert_allclose(previous, expected, atol=1e-6)
        np.testing.assert_allclose(previous.sum(dim=1), 1, atol=1e-6)


def test_momentum_0_keeps_the_last_epoch_alone():
    loss, previous = loss_of(0), None
    for epoch, outputs in enumerate(random_outputs(4), 1):
        previous = loss.remember(previous, loss.predict(outputs), epoch)
        assert torch.equal(previous, outputs.softmax(dim=1))


def test_what_other_teachers_remember():
    own, earlier = torch.tensor([1, 2]), torch.tensor([0, 0])
    assert Loss().remember(None, own, 1) is None
    assert Loss(SELF_DISTILLATION).remember(None, own, 1) is None
    assert Loss(SELF_DISTILLATION, "previous-epoch").remember(earlier, own, 2) is own
    assert Loss(SELF_DISTILLATION, "uniform", weight=0.1).remember(None, own, 1) is None


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("weight", [None, 0.9])
def test_the_objective_of_a_batch_against_a_loop(soft, weight):
    logits, *earlier = random_outputs(4, seed=1)
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0])
    previous = torch.from_numpy(average([z.softmax(dim=1) for z in earlier], 0.6)).float()
    objective, agreement = loss_of(0.6, soft, weight)(logits, labels, previous)
    agreed = [int(row.argmax()) == int(y) for row, y in zip(previous, labels, strict=True)]
    mixed = sum(agreed) / len(agreed) if weight is None else weight
    assert 0 < sum(agreed) < len(agreed)
    expected = 0.0
    for z, y, teacher in zip(logits.double(), labels, previous.double(), strict=True):
        log_probability = z - math.log(sum(math.exp(v) for v in z))
        target = teacher if soft else torch.eye(3)[teacher.argmax()]
        target = (1 - mixed) * torch.eye(3)[y] + mixed * target
        expected -= float(sum(target * log_probability)) / len(labels)
    assert float(objective) == pytest.approx(expected, rel=1e-5)
    assert float(agreement) == pytest.approx(sum(agreed) / len(agreed))


@pytest.mark.parametrize("soft", [True, False])
def test_training_against_a_plain_loop(soft):
    """The weights after five epochs, in float64, equal those of a loop that keeps everything."""
    dataset, momentum, size = make_dataset(train=44), 0.8, 10
    images, noisy, clean = (
        torch.from_numpy(a)
        for a in (dataset.train_images, dataset.train_labels, dataset.clean_labels)
    )
    settings = RunSettings(
        loss=SELF_DISTILLATION,
        teacher="previous-epochs",
        soft=soft,
        momentum=momentum,
        epochs=5,
        batch_size=size,
        lr=0.05,
        augment=False,
        seed=3,
    )

    def network():
        torch.manual_seed(0)
        return nn.Sequential(Double(), nn.Flatten(), nn.Linear(192, 4)).double()

    model, previous = network(), None
    optimizer = torch.optim.SGD(model.parameters(), lr=1)
    for epoch in range(1, 6):
        train_set = [images, noisy, clean]
        _, predictions = train_epoch(model, optimizer, train_set, settings, epoch, previous)
        previous = settings.loss_function.remember(previous, predictions, epoch)

    slow, kept, step = network(), [], 0
    for epoch in range(1, 6):
        teacher, now = (average(kept, momentum) if kept else None), np.zeros((44, 4))
        generator = seed_epoch(3, epoch)
        for _, index in training_batches(images, size, False, generator):
            outputs = slow(normalize(images[index]))
            now[index] = outputs.detach().softmax(dim=1)
            targets = torch.eye(4, dtype=torch.float64)[noisy[index]]
            if teacher is not None:
                rows = torch.from_numpy(teacher[index])
                share = (rows.argmax(dim=1) == noisy[index]).double().mean()
                rows = rows if soft else torch.eye(4, dtype=torch.float64)[rows.argmax(dim=1)]
                targets = (1 - share) * targets + share * rows
            objective = -(targets * outputs.log_softmax(dim=1)).sum(dim=1).mean()
            gradients = torch.autograd.grad(objective, list(slow.parameters()))
            rate = learning_rate(step, 25, 0.05)
            step += 1
            with torch.no_grad():
                for parameter, gradient in zip(slow.parameters(), gradients, strict=True):
                    parameter -= rate * gradient
        kept.append(now)
    assert step == 25
    for fast, reference in zip(model.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-5, atol=1e-7)


class Double(nn.Module):
    """The inputs in float64."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.double()


# --- Runs ---


def assert_equal_runs(one, other):
    """History without times, outputs, weights and the averages are equal, bit for bit."""
    assert history(one) == history(other)
    for name in LOGITS:
        assert (one / name).read_bytes() == (other / name).read_bytes()
    a, b = (checkpoint.read(run, "cpu") for run in (one, other))
    for key, tensor in a["model"].items():
        assert torch.equal(tensor, b["model"][key])
    assert torch.equal(a["previous"], b["previous"])


@pytest.mark.slow
@pytest.mark.parametrize("flags", [[], ["--weight=0.9"]])
def test_momentum_0_is_the_previous_epoch(script, workplace, flags):
    flags = [*SMALL_RUN, "--dis=1", "--soft", "--epochs=4", *flags]
    for name, teacher in (
        ("average", ["--teacher=previous-epochs", "--momentum=0"]),
        ("previous", ["--teacher=previous-epoch"]),
        ("longer", ["--teacher=previous-epochs", "--momentum=0.5"]),
    ):
        assert script("train", *flags, *teacher, f"--run={name}")[0] == 0
    assert_equal_runs(RUNS / "average", RUNS / "previous")
    assert history(RUNS / "longer")[:2] == history(RUNS / "previous")[:2]
    assert history(RUNS / "longer")[2] != history(RUNS / "previous")[2]


@pytest.mark.slow
def test_each_epoch_learns_from_the_average_of_those_before(script, workplace, monkeypatch):
    given, predicted = [], []

    def record(model, optimizer, train_set, settings, epoch, previous, step, average):
        given.append(previous)
        statistics, predictions = train_epoch(
            model, optimizer, train_set, settings, epoch, previous, step, average
        )
        predicted.append(predictions.clone())
        return statistics, predictions

    monkeypatch.setattr(training.run, "train_epoch", record)
    assert script("train", *SMALL_RUN, *AVERAGED, "--epochs=4", "--run=a")[0] == 0
    assert given[0] is None
    for epoch in (1, 2, 3):
        np.testing.assert_allclose(given[epoch], average(predicted[:epoch], 0.8), atol=1e-6)
    kept = checkpoint.read(RUNS / "a", "cpu")["previous"]
    np.testing.assert_allclose(kept, average(predicted, 0.8), atol=1e-6)
    assert kept.shape == (60, 4) and kept.dtype == torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("soft", [[], ["--soft"]])
def test_resumed_is_as_never_stopped(script, workplace, soft):
    flags = [*SMALL_RUN, *AVERAGED, *soft, "--epochs=4"]
    for name in ("whole", "resumed"):
        assert script("train", *flags, f"--run={name}")[0] == 0
    run = RUNS / "resumed"
    os.replace(run / checkpoint.PREVIOUS, run / checkpoint.NAME)
    status, out, _ = script("train", *flags, "--run=resumed", "--resume")
    assert status == 0 and "from epoch 4" in out
    assert_equal_runs(RUNS / "whole", run)


def test_resuming_with_another_momentum_is_refused(script, refused, workplace):
    flags = [*SMALL_RUN, *AVERAGED[:2], "--epochs=1", "--run=a"]
    assert script("train", *flags, "--momentum=0.8")[0] == 0
    message = refused("train", *flags, "--momentum=0.7", "--resume")
    assert "momentum = 0.8, not 0.7" in message


@pytest.mark.slow
def test_two_processes_equal_one(workplace):
    """61 images in batches of 20: the last batch leaves the second process without one."""
    write_dataset(Path("data/small.npz"), make_dataset(train=61))
    flags = " ".join([*SMALL_RUN, *AVERAGED, "--epochs=4", "--batch-size=20"])
    program = str(PROGRAMS / "train_small_network.py")
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for name, start in (("one", []), ("two", torchrun)):
        runs = [f"{flags} --run={name}", f"{flags} --soft --run={name}-soft"]
        command = [sys.executable, *start, program, *runs]
        done = subprocess.run(command, capture_output=True, text=True, env=environment())
        assert done.returncode == 0, done.stderr
    for suffix in ("", "-soft"):
        one, two = RUNS / f"one{suffix}", RUNS / f"two{suffix}"
        assert "2 processes" in read_config(two)["device"]
        for alone, together in zip(history(one), history(two), strict=True):
            assert alone.keys() == together.keys()
            for key in alone.keys() - {"sha256"}:  # digests are of bits, which differ
                value = alone[key]
                expected = value if value is None else pytest.approx(value, rel=1e-6)
                assert together[key] == expected, key
        averages = [checkpoint.read(run, "cpu")["previous"] for run in (one, two)]
        torch.testing.assert_close(*averages, rtol=1e-5, atol=1e-7)
        assert averages[0].std(dim=0).min() > 0.001  # each image has its own
