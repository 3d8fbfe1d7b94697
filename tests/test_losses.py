"""losses.py: the formulas against a hand-written case and an independent float64 reference."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from losses import (
    LOSSES,
    SELF_DISTILLATION,
    TEACHERS,
    Loss,
    agreement,
    cross_entropy,
    most_likely,
    self_distillation,
)


def distill(logits, labels):
    """The original's variant: the network's own prediction, weighted by its agreement."""
    return Loss(SELF_DISTILLATION)(logits, labels)


def reference(logits, labels):
    """Loss, agreement and gradient of self-distillation by plain loops in float64."""
    count, classes = logits.shape
    predictions = [max(range(classes), key=lambda c: (row[c], -c)) for row in logits]
    agreement = sum(p == y for p, y in zip(predictions, labels, strict=True)) / count
    loss, gradient = 0.0, np.zeros((count, classes))
    for i in range(count):
        shifted = [z - max(logits[i]) for z in logits[i]]
        total = sum(math.exp(z) for z in shifted)
        for c in range(classes):
            target = (1 - agreement) * (c == labels[i]) + agreement * (c == predictions[i])
            loss -= target * (shifted[c] - math.log(total)) / count
            gradient[i, c] = (math.exp(shifted[c]) / total - target) / count
    return loss, agreement, gradient


@given(st.integers(1, 40), st.integers(2, 12), st.integers(0, 10**6), st.floats(0.01, 30))
@settings(max_examples=60)
def test_loss_and_gradient_against_loops(count, classes, seed, scale):
    random = np.random.default_rng(seed)
    logits = (scale * random.standard_normal((count, classes))).astype(np.float32)
    labels = random.integers(0, classes, count)
    z = torch.from_numpy(logits).requires_grad_()
    loss, agreed = distill(z, torch.from_numpy(labels))
    loss.backward()
    expected, expected_agreement, gradient = reference(logits.astype(np.float64), labels)
    assert loss.dtype == agreed.dtype == torch.float32 and loss.shape == agreed.shape == ()
    assert loss.item() == pytest.approx(expected, rel=2e-5, abs=1e-6)
    assert agreed.item() == pytest.approx(expected_agreement, rel=1e-6)
    np.testing.assert_allclose(z.grad.numpy(), gradient, atol=1e-6)


def test_case_by_hand():
    # Two images, two classes; softmax rows (3/4, 1/4) and (1/4, 3/4). The first is predicted as
    # its label, the second is not: lambda = 1/2. Targets: (1, 0) and (1/2, 1/2).
    logits = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]])
    loss, agreed = distill(logits, torch.tensor([0, 0]))
    assert agreed.item() == 0.5
    first, second = -math.log(3 / 4), -(math.log(1 / 4) + math.log(3 / 4)) / 2
    assert loss.item() == pytest.approx((first + second) / 2, rel=1e-6)


def test_soft_prediction_by_hand():
    # One image, softmax (3/4, 1/4), label 0; the target is (0.8, 0) + 0.2 (0.5, 0.5).
    logits = torch.tensor([[math.log(3), 0.0]])
    prediction = torch.tensor([[0.5, 0.5]])
    loss = self_distillation(logits, torch.tensor([0]), prediction, 0.2)
    expected = -0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert agreement(prediction + torch.tensor([0, 0.1]), torch.tensor([1])).item() == 1


def test_fixed_weight_and_uniform_prediction_is_label_smoothing():
    logits, labels = torch.randn(9, 5), torch.randint(5, (9,))
    loss = self_distillation(logits, labels, torch.full((9, 5), 0.2), 0.3)
    torch.testing.assert_close(
        loss, torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.3)
    )


def test_without_agreement_it_is_cross_entropy():
    logits = torch.randn(9, 5, requires_grad=True)
    labels = (logits.argmax(1) + 1) % 5
    loss, agreed = distill(logits, labels)
    plain = cross_entropy(logits, labels)
    assert agreed.item() == 0
    torch.testing.assert_close(loss, plain)
    (gradient,), (plain_gradient,) = (torch.autograd.grad(v, logits) for v in (loss, plain))
    torch.testing.assert_close(gradient, plain_gradient)


def test_targets_and_agreement_carry_no_gradient():
    logits = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    _, agreed = distill(logits, labels)
    assert not agreed.requires_grad
    # The gradient is that of a fixed target: finite differences see no other.
    assert torch.autograd.gradcheck(lambda z: distill(z, labels)[0], logits)


def test_gradient_equals_that_of_the_originals_divergence():
    logits = torch.randn(8, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(4, (8,))
    loss, agreed = distill(logits, labels)
    target = torch.zeros(8, 4, dtype=torch.float64)
    for i in range(8):
        target[i, labels[i]] += 1 - agreed
        target[i, logits[i].argmax()] += agreed
    divergence = torch.nn.functional.kl_div(logits.log_softmax(1), target, reduction="batchmean")
    entropy = -torch.special.xlogy(target, target).sum(1).mean()
    torch.testing.assert_close(loss, divergence + entropy)
    torch.testing.assert_close(
        torch.autograd.grad(loss, logits)[0], torch.autograd.grad(divergence, logits)[0]
    )


def test_cross_entropy_against_scipy():
    from scipy.special import log_softmax

    random = np.random.default_rng(0)
    logits, labels = random.standard_normal((50, 10)).astype("f"), random.integers(0, 10, 50)
    expected = -log_softmax(logits.astype(float), axis=1)[np.arange(50), labels].mean()
    loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_nothing_waits_for_the_device():
    # On the meta device there are no numbers to wait for: .item() and the like raise.
    logits = torch.randn(8, 4, device="meta", requires_grad=True)
    labels = torch.zeros(8, dtype=torch.int64, device="meta")
    loss, agreed = distill(logits, labels)
    loss.backward()
    assert loss.device.type == agreed.device.type == "meta"
    with pytest.raises(RuntimeError):
        agreed.item()


def test_teachers_by_hand():
    # Softmax rows (3/4, 1/4) and (1/4, 3/4), both labels 0; the epoch before predicted 1 and 0.
    logits = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]])
    labels, previous = torch.tensor([0, 0]), torch.tensor([1, 0])
    label, other = -math.log(3 / 4), -math.log(1 / 4)  # of the first image; the second's turned
    plain = (label + other) / 2
    cases = {
        ("batch", False, None): ((label + (label + other) / 2) / 2, 0.5),
        ("batch", False, 0.2): ((label + 0.8 * other + 0.2 * label) / 2, 0.5),
        ("batch", True, 1.0): (0.75 * label + 0.25 * other, 0.5),
        ("previous-epoch", False, None): (((label + other) / 2 + other) / 2, 0.5),
        ("previous-epoch", False, 1.0): (other, 0.5),
        ("uniform", False, 1.0): ((label + other) / 2, 1.0),
    }
    for (teacher, soft, weight), (expected, agreed) in cases.items():
        loss = Loss(SELF_DISTILLATION, teacher, soft, weight)
        objective, measured = loss(logits, labels, previous)
        assert objective.item() == pytest.approx(expected, rel=1e-6), (teacher, soft, weight)
        assert measured.item() == agreed
    first, none = Loss(SELF_DISTILLATION, "previous-epoch")(logits, labels, None)
    assert first.item() == pytest.approx(plain, rel=1e-6) and none is None
    assert {teacher for teacher, _, _ in cases} == set(TEACHERS) - {"previous-epochs"}


def test_agreement_of_the_whole_batch_is_the_weight():
    # This process has agreement 1, the whole batch 1/4.
    logits, labels = torch.tensor([[math.log(3), 0.0]]), torch.tensor([0])
    previous = torch.tensor([0])
    loss = Loss(SELF_DISTILLATION, "previous-epoch")
    objective, agreed = loss(logits, labels, previous, average=lambda mean: mean / 4)
    assert agreed.item() == 0.25
    assert objective.item() == pytest.approx(-math.log(3 / 4), rel=1e-6)
    _, agreed = Loss(SELF_DISTILLATION)(-logits, labels, average=lambda mean: mean + 0.5)
    assert agreed.item() == 0.5


def test_plain_loss_is_that_of_the_dict(monkeypatch):
    logits, labels = torch.randn(9, 5), torch.randint(5, (9,))
    objective, agreed = Loss()(logits, labels)
    assert torch.equal(objective, cross_entropy(logits, labels)) and agreed is None
    monkeypatch.setitem(LOSSES, "largest", lambda z, y: z.max())
    assert Loss("largest")(logits, labels)[0] == logits.max()
    assert Loss("largest").title == Loss("largest").slug == "largest"


def test_predictions_are_classes_or_distributions():
    logits = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]])
    assert Loss(SELF_DISTILLATION).predict(logits).tolist() == [0, 1]
    soft = Loss(SELF_DISTILLATION, soft=True).predict(logits)
    torch.testing.assert_close(soft, torch.tensor([[0.75, 0.25], [0.25, 0.75]]))
    assert most_likely(soft).tolist() == most_likely(torch.tensor([0, 1])).tolist() == [0, 1]
    for teacher, needed in (("batch", False), ("previous-epoch", True), ("uniform", False)):
        loss = Loss(SELF_DISTILLATION, teacher, weight=0.5)
        assert (loss.remember(None, torch.tensor([1]), epoch=1) is not None) == needed
