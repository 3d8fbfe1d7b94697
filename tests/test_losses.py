"""losses.py: cases by hand, memory, names. Loops in float64: references.py, test_epoch.py."""

import math

import pytest
import torch

from losses import (
    LOSSES,
    CrossEntropy,
    EarlyLearningRegularization,
    GeneralizedCrossEntropy,
    SelfDistillation,
)

VARIANTS = [
    CrossEntropy(),
    *(
        SelfDistillation(teacher, soft, weight)
        for teacher in ("batch", "previous-epoch")
        for soft in (False, True)
        for weight in (None, 0.3)
    ),
    SelfDistillation("uniform", False, 0.3),
    GeneralizedCrossEntropy(),
    GeneralizedCrossEntropy(0.2),
    EarlyLearningRegularization(),
    EarlyLearningRegularization(0.9, 1.0),
]
variants = pytest.mark.parametrize("loss", VARIANTS, ids=lambda loss: loss.title)  # in test_epoch


def begun(loss, images, **options):
    """The loss at the start of a training."""
    loss.start(images, **options)
    return loss


# By hand: softmax rows (3/4, 1/4) and (1/4, 3/4), both labels 0.
LOGITS = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]])
LABELS, INDEX = torch.tensor([0, 0]), torch.tensor([0, 1])
RIGHT, WRONG = -math.log(3 / 4), -math.log(1 / 4)
CASES = [
    (CrossEntropy(), (RIGHT + WRONG) / 2, None),
    (SelfDistillation(), (RIGHT + (RIGHT + WRONG) / 2) / 2, 0.5),
    (SelfDistillation(weight=0.2), (RIGHT + 0.8 * WRONG + 0.2 * RIGHT) / 2, 0.5),
    (SelfDistillation(soft=True, weight=1.0), 0.75 * RIGHT + 0.25 * WRONG, 0.5),
    (SelfDistillation("previous-epoch"), ((RIGHT + WRONG) / 2 + WRONG) / 2, 0.5),
    (SelfDistillation("previous-epoch", weight=1.0), WRONG, 0.5),
    (SelfDistillation("uniform", weight=1.0), (RIGHT + WRONG) / 2, 1.0),
    (GeneralizedCrossEntropy(1.0), 0.5, None),
    (GeneralizedCrossEntropy(0.5), (2 - math.sqrt(3 / 4) - math.sqrt(1 / 4)), None),
    # Without a memory the targets are 0.3 p, and <t, p> = 0.3 (9/16 + 1/16) in both rows.
    (EarlyLearningRegularization(), (RIGHT + WRONG) / 2 + 3 * math.log(1 - 0.3 * 10 / 16), None),
]


@pytest.mark.parametrize(("loss", "expected", "agreement"), CASES, ids=lambda case: str(case)[:40])
def test_cases_by_hand(loss, expected, agreement):
    begun(loss, 2)
    if isinstance(loss, SelfDistillation):
        loss.previous = torch.tensor([1, 0])  # what the previous epoch predicted
    assert loss(LOGITS, LABELS, INDEX).item() == pytest.approx(expected, rel=1e-6)
    assert (loss.agreement if agreement is None else loss.agreement.item()) == agreement


def test_probabilities_near_0_and_1_stay_finite():
    logits = torch.tensor([[80.0, 0.0], [0.0, 80.0]], requires_grad=True)
    for loss in (GeneralizedCrossEntropy(), EarlyLearningRegularization()):
        begun(loss, 2)
        for _ in range(3):
            objective = loss(logits, LABELS, INDEX)
            (gradient,) = torch.autograd.grad(objective, logits)
            assert objective.isfinite() and gradient.isfinite().all()
            loss.end_epoch()


# Memory and processes


def test_the_memory_is_of_the_epoch_before():
    loss = begun(SelfDistillation("previous-epoch"), 3)
    assert loss.previous is None
    loss(LOGITS, LABELS, torch.tensor([2, 0]))
    assert loss.previous is None and loss.agreement is None
    loss.end_epoch()
    assert loss.previous.tolist() == [1, 0, 0]  # image 1 was not seen
    loss(-LOGITS, LABELS, torch.tensor([2, 0]))
    assert loss.previous.tolist() == [1, 0, 0]
    loss.end_epoch()
    assert loss.previous.tolist() == [0, 0, 1]
    loss.start(3)
    assert loss.previous is None
    for plain in (CrossEntropy(), SelfDistillation(), GeneralizedCrossEntropy()):
        begun(plain, 2)(LOGITS, LABELS, INDEX)
        plain.end_epoch()
        assert plain.previous is None


def test_processes_share_agreement_and_memory():
    # This process has agreement 1 and half of the batch, in which the whole batch has 1/4.
    loss = begun(SelfDistillation(), 2, all_reduce=lambda mine: mine - 0.25)
    objective = loss(LOGITS[:1], LABELS[:1], INDEX[:1], share=0.5)
    assert loss.agreement.item() == 0.25 and objective.item() == pytest.approx(RIGHT)
    other = begun(SelfDistillation("previous-epoch", soft=True), 4)
    other(LOGITS, LABELS, torch.tensor([1, 3]), share=0.5)
    mine = begun(
        SelfDistillation("previous-epoch", soft=True), 4, all_reduce=lambda sum: sum + other.current
    )
    mine(-LOGITS, LABELS, torch.tensor([2, 0]), share=0.5)
    # A process without images of its own in a batch was given one that is another's.
    mine(5 * LOGITS, LABELS, torch.tensor([1, 3]), share=0)
    mine.end_epoch()
    p = LOGITS.softmax(1)
    torch.testing.assert_close(mine.previous, torch.stack([p[0], p[0], p[1], p[1]]))


# Names


def test_no_two_variants_have_the_same_name():
    assert len({loss.slug for loss in VARIANTS}) == len(VARIANTS)
    assert len({loss.title for loss in VARIANTS}) == len(VARIANTS)
    assert not any(" " in loss.slug for loss in VARIANTS)
    assert {type(loss) for loss in VARIANTS} <= set(LOSSES.values())
