"""training/epoch.py: schedule, randomness, steps and statistics against slow references."""

import math
import re

import numpy as np
import pytest
import torch
from helpers import make_dataset
from slow_losses import SlowLoss
from test_losses import VARIANTS
from torch import nn

from dataset.batches import normalize
from losses import CrossEntropy, SelfDistillation
from models import MODELS
from models.shake_resnet import shake_resnet
from training import run as training_run
from training.epoch import (
    NonFiniteLossError,
    evaluate,
    label_agreement,
    learning_rate,
    seed_epoch,
    train_epoch,
    weighted_means,
)
from training.settings import RunSettings


def make_settings(**changed) -> RunSettings:
    values = {"batch_size": 16, "augment": False, "epochs": 3, "lr": 0.1, "amp": False}
    return RunSettings(**{**values, **changed})


def make_train_set(dataset):
    """Images, noisy and clean labels as tensors."""
    arrays = dataset.train_images, dataset.train_labels, dataset.clean_labels
    return [torch.from_numpy(array) for array in arrays]


def linear_network(*_):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4))


def rows_of_inputs(images):
    """The normalized images as rows, float64 (N, 192)."""
    return normalize(images).contiguous().flatten(1).double().numpy()


def batches_of_epoch(settings, epoch, count):
    """The indices of each batch, as arrays."""
    order = torch.randperm(count, generator=seed_epoch(settings.seed, epoch)).numpy()
    return np.split(order, range(settings.batch_size, count, settings.batch_size))


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
    """SGD on a linear network, by loops in float64; momentum is Nesterov's."""

    def __init__(self, linear, dataset, settings, loss, momentum=0.0, weight_decay=0.0):
        self.settings, self.loss, self.dataset = settings, SlowLoss(loss), dataset
        self.x = rows_of_inputs(torch.from_numpy(dataset.train_images))
        self.parameters = [p.detach().double().numpy().copy() for p in linear.parameters()]
        self.momentum, self.weight_decay = momentum, weight_decay
        self.velocity, self.steps = None, 0

    def epoch(self, number):
        """Train an epoch; returns the record that train_epoch has to return."""
        labels, clean = self.dataset.train_labels, self.dataset.clean_labels
        count, objective, plain, agreement = len(self.x), 0.0, 0.0, None
        right = right_clean = 0
        for batch in batches_of_epoch(self.settings, number, count):
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
            "train_objective": pytest.approx(objective, rel=1e-4),
            "train_cross_entropy": pytest.approx(plain, rel=1e-4),
            "train_accuracy": pytest.approx(100 * right / count),
            "train_clean_accuracy": pytest.approx(100 * right_clean / count),
            "agreement": None if agreement is None else pytest.approx(agreement, abs=1e-6),
        }

    def step(self, gradients):
        total = self.settings.epochs * math.ceil(len(self.x) / self.settings.batch_size)
        rate = self.settings.lr / 2 * (1 + math.cos(math.pi * self.steps / total))
        self.steps += 1
        decayed = [
            g + self.weight_decay * w for g, w in zip(gradients, self.parameters, strict=True)
        ]
        before = self.velocity or [0 * g for g in decayed]
        self.velocity = [self.momentum * v + g for v, g in zip(before, decayed, strict=True)]
        for w, g, v in zip(self.parameters, decayed, self.velocity, strict=True):
            w -= rate * (g + self.momentum * v)


@pytest.mark.parametrize("loss", VARIANTS, ids=lambda loss: loss.title)
def test_every_loss_and_teacher_against_slow_training(loss):
    dataset, settings = make_dataset(train=40), make_settings(lr=0.05)
    train_set, model = make_train_set(dataset), linear_network()
    slow = SlowTraining(model[1], dataset, settings, loss)
    optimizer = torch.optim.SGD(model.parameters(), settings.lr)
    loss.start(40)
    for epoch in (1, 2, 3):
        record = train_epoch(model, optimizer, loss, train_set, settings, epoch)
        assert record == slow.epoch(epoch)
    for parameter, expected in zip(model.parameters(), slow.parameters, strict=True):
        np.testing.assert_allclose(parameter.detach(), expected, atol=1e-4)


def test_the_optimizer_of_a_run_against_slow_training(monkeypatch):
    monkeypatch.setitem(MODELS, "linear", linear_network)
    dataset = make_dataset(train=40)
    settings = make_settings(model="linear", lr=0.01, weight_decay=0.1, loss="self-distillation")
    trained = training_run.make_trained(settings, dataset, torch.device("cpu"))
    model = trained.model
    slow = SlowTraining(model[1], dataset, settings, SelfDistillation(), 0.9, 0.1)
    for epoch in (1, 2, 3):
        record = train_epoch(
            model, trained.optimizer, trained.loss, make_train_set(dataset), settings, epoch
        )
        assert record == slow.epoch(epoch)
    for parameter, expected in zip(model.parameters(), slow.parameters, strict=True):
        np.testing.assert_allclose(parameter.detach(), expected, atol=1e-4)


def test_a_loss_that_is_not_finite_is_named_with_its_step():
    class Exploding(CrossEntropy):
        calls = 0

        def __call__(self, *batch):
            self.calls += 1
            return super().__call__(*batch) * (math.inf if self.calls == 2 else 1)

    model, loss = linear_network(), Exploding()
    loss.start(60)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    train_set = make_train_set(make_dataset())
    with pytest.raises(NonFiniteLossError, match="epoch 2, step 2: the loss is not finite") as e:
        train_epoch(model, optimizer, loss, train_set, make_settings(), 2)
    assert e.value.exit_status == 1 and "--lr" in str(e.value)


def test_the_average_against_a_slow_loop_in_float64():
    dataset, decay = make_dataset(train=40), 0.7
    settings = make_settings(model="small_cnn", lr=0.05, ema_decay=decay)
    trained = training_run.make_trained(settings, dataset, torch.device("cpu"))
    model, average, slow = trained.model, trained.average, []

    def follow(*_):
        for k, tensor in enumerate((*model.parameters(), *model.buffers())):
            now = tensor.detach().double().numpy().copy()
            if len(slow) <= k:
                slow.append(now)  # the first step's weights are where the average starts
            else:
                slow[k] = decay * slow[k] + (1 - decay) * now

    trained.optimizer.register_step_post_hook(follow)
    train_set = make_train_set(dataset)
    train_epoch(model, trained.optimizer, trained.loss, train_set, settings, 1, average)
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
    train_set = make_train_set(make_dataset(train=48))
    objectives, types = [], set()
    for amp in (False, True):
        torch.manual_seed(0)
        model, loss = shake_resnet(8, 4, 4), SelfDistillation()
        loss.start(48)
        model.blocks[-1].register_forward_hook(lambda *call: types.add(call[2].dtype))
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        settings = make_settings(amp=amp, lr=0.05)
        record = train_epoch(model, optimizer, loss, train_set, settings, 1)
        objectives.append(record["train_objective"])
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert types == {torch.float32, torch.bfloat16}
    assert objectives[1] == pytest.approx(objectives[0], rel=0.02)
    assert objectives[1] != objectives[0]


def test_the_faster_precision_is_named_and_random_numbers_stay():
    settings = make_settings(model="small_cnn", amp=True, loss="self-distillation", ema_decay=0.9)
    before = torch.get_rng_state()
    line = training_run.compare_precisions(settings, make_dataset(), steps=1)
    assert torch.equal(torch.get_rng_state(), before)
    bfloat16, float32, faster = re.fullmatch(
        r"--amp: a step takes ([\d.]+) s in bfloat16, ([\d.]+) s in float32; (\S+) is faster here",
        line,
    ).groups()
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


def test_evaluation_is_in_eval_mode_and_in_the_images_order():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4))
    images = torch.from_numpy(make_dataset(train=300).train_images)
    logits = evaluate(model, images)
    assert not logits.requires_grad and logits.shape == (300, 4)
    expected = model(normalize(images[200:201])).detach()[0]
    torch.testing.assert_close(logits[200], expected, rtol=1e-4, atol=1e-5)
