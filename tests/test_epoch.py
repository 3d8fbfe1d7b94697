"""training/: schedule, randomness, and the statistics of an epoch against a slow reference."""

import math

import numpy as np
import pytest
import torch
from helpers import make_dataset
from torch import nn

from dataset.batches import normalize
from losses import CROSS_ENTROPY, SELF_DISTILLATION
from models.shake_resnet import shake_resnet
from training.epoch import learning_rate, seed_epoch, train_epoch
from training.settings import RunSettings
from training.statistics import evaluate, label_agreement


def make_settings(**changed) -> RunSettings:
    values = {"batch_size": 16, "augment": False, "epochs": 3, "lr": 0.1, "amp": False}
    return RunSettings(**{**values, **changed})


def make_train_set(dataset):
    """Images, noisy and clean labels as tensors."""
    arrays = dataset.train_images, dataset.train_labels, dataset.clean_labels
    return [torch.from_numpy(array) for array in arrays]


def linear_network():
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


@pytest.mark.parametrize("loss", [CROSS_ENTROPY, SELF_DISTILLATION])
def test_statistics_of_an_epoch_against_a_slow_reference(loss):
    dataset, model = make_dataset(train=50), linear_network()
    train_set = make_train_set(dataset)
    weights, bias = (p.detach().double().numpy() for p in model[1].parameters())
    logits = rows_of_inputs(train_set[0]) @ weights.T + bias
    # A step this small leaves the float32 weights as they are.
    settings = make_settings(epochs=2, lr=1e-30, loss=loss)
    optimizer = torch.optim.SGD(model.parameters(), 1e-30)
    record, predictions = train_epoch(model, optimizer, train_set, settings, 1)

    noisy, clean = dataset.train_labels, dataset.clean_labels
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    classes = logits.argmax(1)
    np.testing.assert_array_equal(predictions, classes)
    towards_label, towards_own = -log_p[np.arange(50), noisy], -log_p[np.arange(50), classes]
    objective, agreement = towards_label.mean(), 0.0
    if loss == SELF_DISTILLATION:
        objective = 0.0
        for batch in batches_of_epoch(settings, 1, 50):
            a = np.mean(classes[batch] == noisy[batch])
            objective += ((1 - a) * towards_label[batch] + a * towards_own[batch]).sum() / 50
            agreement += a * len(batch) / 50
        assert record["agreement"] == pytest.approx(agreement, rel=1e-6)
    else:
        assert record["agreement"] is None
    assert record["train_objective"] == pytest.approx(objective, rel=1e-5)
    assert record["train_cross_entropy"] == pytest.approx(towards_label.mean(), rel=1e-5)
    assert record["train_accuracy"] == pytest.approx(100 * np.mean(classes == noisy))
    assert record["train_clean_accuracy"] == pytest.approx(100 * np.mean(classes == clean))


class SlowTraining:
    """Plain SGD on a linear network with self-distillation, by loops in float64."""

    def __init__(self, model, dataset, settings):
        self.settings, self.labels = settings, dataset.train_labels
        self.x = rows_of_inputs(torch.from_numpy(dataset.train_images))
        self.weights, self.bias = (p.detach().double().numpy().copy() for p in model.parameters())
        self.steps, self.predictions = 0, {}  # of each image in the epoch before

    def target(self, batch, p, epoch):
        """The target (B, 4) of a batch, what is predicted (B, 4), and the agreement."""
        settings, unit = self.settings, np.eye(4)
        own = p if settings.soft else unit[p.argmax(1)]
        if settings.teacher == "uniform":
            taught = np.full((len(batch), 4), 0.25)
        elif settings.teacher == "previous-epoch" and epoch > 1:
            taught = np.array([self.predictions[i] for i in batch])
        elif settings.teacher == "previous-epoch":
            return unit[self.labels[batch]], own, None  # nothing to learn from yet
        else:
            taught = own
        labels = self.labels[batch]
        agreement = sum(t.argmax() == y for t, y in zip(taught, labels, strict=True)) / len(batch)
        mixed = agreement if settings.weight is None else settings.weight
        return (1 - mixed) * unit[labels] + mixed * taught, own, agreement

    def epoch(self, number):
        """Train an epoch; returns its objective and agreement."""
        count, objective, agreement, kept = len(self.x), 0.0, 0.0, {}
        for batch in batches_of_epoch(self.settings, number, count):
            z = self.x[batch] @ self.weights.T + self.bias
            p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
            target, own, agreed = self.target(batch, p, number)
            kept |= dict(zip(batch, own, strict=True))
            agreement = None if agreed is None else agreement + agreed * len(batch) / count
            objective -= (target * np.log(p)).sum() / count
            slope = (p - target) / len(batch)
            steps = self.settings.epochs * math.ceil(count / self.settings.batch_size)
            rate = self.settings.lr / 2 * (1 + math.cos(math.pi * self.steps / steps))
            self.weights -= rate * slope.T @ self.x[batch]
            self.bias -= rate * slope.sum(0)
            self.steps += 1
        self.predictions = kept
        return objective, agreement


VARIANTS = [
    {"teacher": teacher, "soft": soft, "weight": weight}
    for teacher in ("batch", "previous-epoch")
    for soft in (False, True)
    for weight in (None, 0.3)
] + [{"teacher": "uniform", "weight": 0.3}]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: " ".join(map(str, v.values())))
def test_every_teacher_against_a_slow_reference(variant):
    dataset, settings = make_dataset(train=40), make_settings(loss=SELF_DISTILLATION, **variant)
    train_set, model = make_train_set(dataset), linear_network()
    optimizer = torch.optim.SGD(model.parameters(), settings.lr)
    slow, previous = SlowTraining(model[1], dataset, settings), None
    for epoch in (1, 2, 3):
        record, previous = train_epoch(model, optimizer, train_set, settings, epoch, previous)
        objective, agreement = slow.epoch(epoch)
        assert record["train_objective"] == pytest.approx(objective, rel=1e-4)
        assert (agreement is None) == (settings.teacher == "previous-epoch" and epoch == 1)
        expected = agreement if agreement is None else pytest.approx(agreement, abs=1e-6)
        assert record["agreement"] == expected
        rows = np.array([slow.predictions[i] for i in range(40)])
        expected = rows if settings.soft else rows.argmax(1)
        np.testing.assert_allclose(previous, expected, atol=1e-4)
    np.testing.assert_allclose(model[1].weight.detach(), slow.weights, atol=1e-4)
    np.testing.assert_allclose(model[1].bias.detach(), slow.bias, atol=1e-4)


def test_bfloat16_is_near_float32():
    # On any processor, however slowly: the forward pass alone is in bfloat16.
    train_set = make_train_set(make_dataset(train=48))
    objectives, types = [], set()
    for amp in (False, True):
        torch.manual_seed(0)
        model = shake_resnet(8, 4, 4)
        model.blocks[-1].register_forward_hook(lambda *call: types.add(call[2].dtype))
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        settings = make_settings(amp=amp, lr=0.05, loss=SELF_DISTILLATION)
        record, _ = train_epoch(model, optimizer, train_set, settings, 1)
        objectives.append(record["train_objective"])
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert types == {torch.float32, torch.bfloat16}
    assert objectives[1] == pytest.approx(objectives[0], rel=0.02)
    assert objectives[1] != objectives[0]


def test_label_agreement_by_hand():
    noisy, clean = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([0, 1, 1, 2, 3])
    predictions = torch.tensor([0, 2, 2, 2, 1])
    result = label_agreement(predictions, noisy, clean)
    assert result["accuracy"] == 40 and result["clean_accuracy"] == 40
    # Of the three images with a wrong label one is predicted as its wrong label.
    assert result["memorized"] == pytest.approx(100 / 3)
    assert label_agreement(predictions, clean, clean)["memorized"] is None


def test_evaluation_is_in_eval_mode_and_in_the_images_order():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4))
    images = torch.from_numpy(make_dataset(train=1100).train_images)
    logits = evaluate(model, images)
    assert not logits.requires_grad and logits.shape == (1100, 4)
    expected = model(normalize(images[700:701])).detach()[0]
    torch.testing.assert_close(logits[700], expected, rtol=1e-4, atol=1e-5)
