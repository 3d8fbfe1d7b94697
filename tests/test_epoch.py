"""training/epoch.py: schedule, randomness, steps and statistics against slow references."""

import contextlib
import math
import re
from dataclasses import asdict

import numpy as np
import pytest
import torch
from helpers import make_dataset
from references import SlowLoss
from test_losses import VARIANTS, variants
from torch import nn

from dataset.batches import normalize
from losses import CrossEntropy
from models import MODELS
from training.epoch import (
    label_agreement,
    learning_rate,
    seed_epoch,
    train_epoch,
    train_step,
    weighted_means,
)
from training.run import MOMENTUM, compare_precisions, make_trained
from training.settings import RunSettings

CPU, SGD = torch.device("cpu"), torch.optim.SGD


def make_settings(loss=None, **changed) -> RunSettings:
    loss = loss or CrossEntropy()
    values = {"batch_size": 16, "augment": False, "epochs": 3, "lr": 0.05, "weight_decay": 0.1}
    values |= {"loss": loss.name, "loss_flags": asdict(loss), "amp": False, "model": "small_cnn"}
    return RunSettings(**{**values, **changed})


def make_train_set(dataset):
    """Images, noisy and clean labels as tensors."""
    arrays = dataset.train_images, dataset.train_labels, dataset.clean_labels
    return [torch.from_numpy(array) for array in arrays]


class Rows(nn.Flatten):
    """Images as rows, in float64."""

    def forward(self, images):
        return super().forward(images).double()


def linear_network(*_):
    return nn.Sequential(Rows(), nn.Linear(192, 4)).double()


def test_learning_rate_is_one_cosine_from_the_peak_to_zero():
    assert learning_rate(0, 100, 0.2) == 0.2
    assert learning_rate(50, 100, 0.2) == pytest.approx(0.1)
    assert learning_rate(100, 100, 0.2) == pytest.approx(0, abs=1e-15)
    rates = [learning_rate(step, 100, 0.2) for step in range(101)]
    assert rates == sorted(rates, reverse=True) and rates[99] > 0
    assert rates[17] == pytest.approx(0.1 * (1 + math.cos(math.pi * 17 / 100)))


def test_randomness_is_a_function_of_seed_and_epoch():
    def draws(seed, epoch):
        generator = seed_epoch(seed, epoch)
        return torch.rand(3).tolist() + torch.rand(3, generator=generator).tolist()

    assert draws(3, 7) == draws(3, 7)
    assert len({tuple(draws(seed, epoch)) for seed in range(5) for epoch in range(5)}) == 25
    values = draws(0, 1)
    assert values[:3] != values[3:]


class SlowTraining:
    """SGD with Nesterov's momentum on a linear network, by loops in float64."""

    def __init__(self, linear, dataset, settings, loss):
        self.settings, self.loss, self.dataset = settings, SlowLoss(loss), dataset
        images = normalize(torch.from_numpy(dataset.train_images))
        self.x = images.contiguous().flatten(1).double().numpy()  # (N, 192)
        self.parameters = [p.detach().numpy().copy() for p in linear.parameters()]
        self.velocity, self.steps = [0, 0], 0

    def epoch(self, number):
        """Train an epoch; returns the record that train_epoch has to return."""
        labels, clean = self.dataset.train_labels, self.dataset.clean_labels
        count, objective, plain, agreement = len(self.x), 0.0, 0.0, None
        right = right_clean = 0
        order = torch.randperm(count, generator=seed_epoch(self.settings.seed, number)).numpy()
        size = self.settings.batch_size
        for batch in np.split(order, range(size, count, size)):
            weights, bias = self.parameters
            z = self.x[batch] @ weights.T + bias
            value, slope, agreed = self.loss(z, labels[batch], batch)
            part = len(batch) / count
            objective += value * part
            plain += SlowLoss(CrossEntropy())(z, labels[batch], batch)[0] * part
            if agreed is not None:
                agreement = (agreement or 0) + agreed * part
            right += (z.argmax(1) == labels[batch]).sum()
            right_clean += (z.argmax(1) == clean[batch]).sum()
            self.step([slope.T @ self.x[batch], slope.sum(0)])
        self.loss.end_epoch()
        return {
            "train_objective": pytest.approx(objective, rel=1e-9),
            "train_cross_entropy": pytest.approx(plain, rel=1e-9),
            "train_accuracy": pytest.approx(100 * right / count),
            "train_clean_accuracy": pytest.approx(100 * right_clean / count),
            "agreement": None if agreement is None else pytest.approx(agreement, abs=1e-6),
        }

    def step(self, gradients):
        total = self.settings.epochs * math.ceil(len(self.x) / self.settings.batch_size)
        rate = self.settings.lr / 2 * (1 + math.cos(math.pi * self.steps / total))
        self.steps += 1
        for k, (w, gradient) in enumerate(zip(self.parameters, gradients, strict=True)):
            decayed = gradient + self.settings.weight_decay * w
            self.velocity[k] = MOMENTUM * self.velocity[k] + decayed
            w -= rate * (decayed + MOMENTUM * self.velocity[k])


@variants
def test_every_loss_and_teacher_against_slow_training(loss, monkeypatch):
    monkeypatch.setitem(MODELS, "linear", linear_network)
    dataset = make_dataset(train=40)
    settings = make_settings(loss, model="linear", lr=0.01)
    trained = make_trained(settings, dataset, CPU)
    slow = SlowTraining(trained.model[1], dataset, settings, loss)
    for epoch in (1, 2, 3):
        record = train_epoch(trained, make_train_set(dataset), settings, epoch)
        assert record == slow.epoch(epoch)
    for parameter, expected in zip(trained.model.parameters(), slow.parameters, strict=True):
        np.testing.assert_allclose(parameter.detach(), expected, rtol=0, atol=1e-9)


STEPS = [(loss, "linear") for loss in VARIANTS] + [(CrossEntropy(), name) for name in MODELS]


@pytest.mark.parametrize(("loss", "model"), STEPS)
def test_no_step_reads_a_value_back_to_the_host(loss, model, monkeypatch):
    # On the meta device there are no numbers to wait for: .item() and the like raise. It has no
    # autocast, and no fused optimizer.
    monkeypatch.setattr(torch, "autocast", lambda *args, **flags: contextlib.nullcontext())
    monkeypatch.setattr(torch.optim, "SGD", lambda *args, fused, **flags: SGD(*args, **flags))
    monkeypatch.setitem(MODELS, "linear", linear_network)
    settings = make_settings(loss, model=model, depth=8, width=4, ema_decay=0.9)
    trained = make_trained(settings, make_dataset(), torch.device("meta"))
    trained.model.train()
    images, index = torch.empty(16, 3, 8, 8, device="meta"), torch.arange(16, device="meta")
    for _ in range(2):
        logits, objective = train_step(trained, images, index, index, 1, None)
        trained.loss.end_epoch()
    assert logits.device.type == objective.device.type == "meta"


def test_the_average_against_a_slow_loop_in_float64():
    dataset, decay = make_dataset(train=40), 0.7
    settings = make_settings(ema_decay=decay)
    trained = make_trained(settings, dataset, CPU)
    model, average, slow = trained.model, trained.average, []

    def follow(*_):
        for k, tensor in enumerate((*model.parameters(), *model.buffers())):
            now = tensor.detach().double().numpy().copy()
            if len(slow) <= k:
                slow.append(now)  # the first step's weights are where the average starts
            else:
                slow[k] = decay * slow[k] + (1 - decay) * now

    trained.optimizer.register_step_post_hook(follow)
    train_epoch(trained, make_train_set(dataset), settings, 1)
    assert int(average.n_averaged) == 3
    averages, moved = (*average.module.parameters(), *average.module.buffers()), 0
    own = (*model.parameters(), *model.buffers())
    for tensor, latest, expected in zip(averages, own, slow, strict=True):
        if tensor.is_floating_point():
            np.testing.assert_allclose(tensor.detach(), expected, rtol=1e-5, atol=1e-7)
            moved += not torch.equal(tensor, latest)
    assert moved > 10


def test_bfloat16_is_near_float32():
    # On any processor, however slowly: the forward pass alone is in bfloat16.
    dataset, objectives, types = make_dataset(train=48), [], set()
    for amp in (False, True):
        settings = make_settings(amp=amp, model="shake_resnet", depth=8, width=4)
        trained = make_trained(settings, dataset, CPU)
        trained.model.blocks[-1].register_forward_hook(lambda *call: types.add(call[2].dtype))
        record = train_epoch(trained, make_train_set(dataset), settings, 1)
        objectives.append(record["train_objective"])
        assert {p.dtype for p in trained.model.parameters()} == {torch.float32}
    assert types == {torch.float32, torch.bfloat16}
    assert objectives[1] == pytest.approx(objectives[0], rel=0.02)
    assert objectives[1] != objectives[0]


def test_the_faster_precision_is_named_and_random_numbers_stay():
    before = torch.get_rng_state()
    line = compare_precisions(make_settings(amp=True, ema_decay=0.9), make_dataset(), steps=1)
    assert torch.equal(torch.get_rng_state(), before)
    times = (
        r"--amp: a step takes ([\d.]+) s in bfloat16, ([\d.]+) s in float32; (\S+) is faster here"
    )
    bfloat16, float32, faster = re.fullmatch(times, line).groups()
    assert bfloat16 == float32 or (faster == "--amp") == (float(bfloat16) < float(float32))


def test_label_agreement_by_hand():
    noisy, clean = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([0, 1, 1, 2, 3])
    predictions = torch.tensor([0, 2, 2, 2, 1])
    assert label_agreement(predictions, noisy, clean) == {
        "accuracy": 40,
        "clean_accuracy": 40,
        "memorized": pytest.approx(100 / 3),  # of three wrong labels one is predicted
        "clean_accuracy_right": 50,
        "clean_accuracy_wrong": pytest.approx(100 / 3),
    }
    without_noise = label_agreement(predictions, clean, clean)
    assert without_noise["memorized"] is without_noise["clean_accuracy_wrong"] is None


def test_means_are_over_images_and_exact_for_ones():
    sizes = [16, 16, 16, 2]
    values = torch.tensor([[1.0, 1], [2, 1], [3, 1], [8, 1]], dtype=torch.float64)
    assert weighted_means(values, sizes) == [pytest.approx((16 + 32 + 48 + 16) / 50), 1.0]
    assert weighted_means(values[:1], [5]) == [1.0, 1.0]
