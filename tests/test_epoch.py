"""epoch.py: schedule, randomness, and the statistics of an epoch against a slow reference."""

import argparse
import math

import numpy as np
import pytest
import torch
from conftest import make_dataset
from torch import nn

import data
import epoch
from models import shake_resnet


def test_learning_rate_is_one_cosine_from_the_peak_to_zero():
    assert epoch.learning_rate(0, 100, 0.2) == 0.2
    assert epoch.learning_rate(50, 100, 0.2) == pytest.approx(0.1)
    assert epoch.learning_rate(100, 100, 0.2) == pytest.approx(0, abs=1e-15)
    rates = [epoch.learning_rate(step, 100, 0.2) for step in range(101)]
    assert rates == sorted(rates, reverse=True) and rates[99] > 0
    expected = 0.1 * (1 + math.cos(math.pi * 17 / 100))
    assert rates[17] == pytest.approx(expected)


def test_randomness_is_a_function_of_seed_and_epoch():
    def draws(seed, number):
        generator = epoch.seed_epoch(seed, number, torch.device("cpu"))
        return torch.rand(3).tolist() + torch.rand(3, generator=generator).tolist()

    assert draws(3, 7) == draws(3, 7)
    assert len({tuple(draws(s, e)) for s in range(5) for e in range(5)}) == 25
    one = draws(0, 1)
    assert one[:3] != one[3:]


def flags(**changed):
    """Flags of train.py that an epoch depends on."""
    names = {"seed": 0, "batch_size": 16, "augment": False, "epochs": 3, "lr": 0.1, "dis": 1}
    return argparse.Namespace(
        **{**names, "teacher": "batch", "soft": False, "weight": None, "amp": False, **changed}
    )


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
    args = flags(epochs=2, lr=1e-30, dis=dis)
    optimizer = torch.optim.SGD(model.parameters(), 1e-30)
    found, predictions = epoch.train_epoch(model, optimizer, [images, labels, clean], args, 1)

    y, true = labels.numpy(), clean.numpy()
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    prediction = logits.argmax(1)
    np.testing.assert_array_equal(predictions, prediction)
    plain = -log_p[np.arange(50), y]
    order = torch.randperm(50, generator=epoch.seed_epoch(0, 1, torch.device("cpu"))).numpy()
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


VARIANTS = [
    {"teacher": teacher, "soft": soft, "weight": weight}
    for teacher in ("batch", "previous-epoch")
    for soft in (False, True)
    for weight in (None, 0.3)
] + [{"teacher": "uniform", "weight": 0.3}]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_teacher_against_a_slow_reference(variant):
    # Three epochs of plain SGD on a linear network, targets and gradients by loops in float64.
    dataset, args = make_dataset(train=40), flags(**variant)
    arrays = (dataset.train_images, dataset.train_labels, dataset.clean_labels)
    train_set = [torch.from_numpy(a) for a in arrays]
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    x = data.normalize(train_set[0]).contiguous().flatten(1).double().numpy()
    weights, bias = (p.detach().double().numpy().copy() for p in model[1].parameters())
    optimizer = torch.optim.SGD(model.parameters(), args.lr)
    previous, kept, steps = None, {}, 0
    for number in (1, 2, 3):
        found, previous = epoch.train_epoch(model, optimizer, train_set, args, number, previous)
        order = torch.randperm(40, generator=epoch.seed_epoch(0, number, torch.device("cpu")))
        remembered, losses, agreements = dict(kept), 0.0, []
        for part in np.split(order.numpy(), [16, 32]):
            z = x[part] @ weights.T + bias
            p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
            unit = np.eye(4)
            own = p if args.soft else unit[z.argmax(1)]
            guess, mix = own, 1.0
            if args.teacher == "uniform":
                guess = np.full((len(part), 4), 0.25)
            elif args.teacher == "previous-epoch":
                mix = float(number > 1)
                guess = np.array([remembered.get(i, unit[0]) for i in part])
            for row, i in zip(own, part, strict=True):
                kept[i] = row
            given = dataset.train_labels[part]
            agreed = sum(g.argmax() == y for g, y in zip(guess, given, strict=True)) / len(part)
            agreements.append(agreed * len(part) / 40)
            mix *= agreed if args.weight is None else args.weight
            target = (1 - mix) * unit[given] + mix * guess
            losses += -(target * np.log(p)).sum() / 40
            slope = (p - target) / len(part)
            lr = 0.05 * (1 + math.cos(math.pi * steps / 9))
            weights -= lr * slope.T @ x[part]
            bias -= lr * slope.sum(0)
            steps += 1
        assert found["train_objective"] == pytest.approx(losses, rel=1e-4)
        if args.teacher == "previous-epoch" and number == 1:
            assert found["agreement"] is None
        else:
            assert found["agreement"] == pytest.approx(sum(agreements), abs=1e-6)
        expected = np.array([kept[i] if args.soft else kept[i].argmax() for i in range(40)])
        np.testing.assert_allclose(previous, expected, atol=1e-4)
    np.testing.assert_allclose(model[1].weight.detach(), weights, atol=1e-4)


def test_bfloat16_is_near_float32():
    # On any processor, however slowly: the forward pass alone is in bfloat16.
    dataset = make_dataset(train=48)
    arrays = (dataset.train_images, dataset.train_labels, dataset.clean_labels)
    train_set = [torch.from_numpy(a) for a in arrays]
    found, kinds = [], set()
    for amp in (False, True):
        torch.manual_seed(0)
        model = shake_resnet(8, 4, 4)
        model.blocks.register_forward_hook(lambda *call: kinds.add(call[2].dtype))
        optimizer = torch.optim.SGD(model.parameters(), 0.05)
        statistics, _ = epoch.train_epoch(model, optimizer, train_set, flags(amp=amp, lr=0.05), 1)
        found.append(statistics)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert kinds == {torch.float32, torch.bfloat16}
    assert found[1]["train_objective"] == pytest.approx(found[0]["train_objective"], rel=0.02)
    assert found[1]["train_objective"] != found[0]["train_objective"]


def test_label_agreement_by_hand():
    given, true = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([0, 1, 1, 2, 3])
    predictions = torch.tensor([0, 2, 2, 2, 1])
    found = epoch.label_agreement(predictions, given, true)
    assert found["accuracy"] == 40 and found["clean_accuracy"] == 40
    # Of the three wrongly labelled images one is predicted as its wrong label.
    assert found["memorized"] == pytest.approx(100 / 3)
    assert epoch.label_agreement(predictions, true, true)["memorized"] is None


def test_evaluation_is_in_eval_mode_and_in_the_images_order():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 4))
    images = torch.from_numpy(make_dataset(train=1100).train_images)
    logits = epoch.evaluate(model, images)
    assert not logits.requires_grad and logits.shape == (1100, 4)
    expected = model(data.normalize(images[700:701])).detach()[0]
    torch.testing.assert_close(logits[700], expected, rtol=1e-4, atol=1e-5)
