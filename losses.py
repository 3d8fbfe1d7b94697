"""The losses: the one place where a loss is added.

A loss is a class in LOSSES. Its fields are its flags in train.py, so that `--help`, config.json and
the run's name know them. Training calls `start` once, the loss once per batch and `end_epoch` once
per epoch. Losses are means over the batch in nats; docs/method.md has their formulas.
"""

# The flags are needed by --help, which should not wait for torch: functions import it themselves.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING

from common.command_line import UserError, decay, fraction, non_negative, number

if TYPE_CHECKING:
    from torch import Tensor


def flag(default, help: str, **options):
    """A field of a loss that is a flag of train.py; options are those of argparse."""
    return field(default=default, metadata={"help": help, **options})


def flags_of(loss: type) -> dict[str, object]:
    """The flags of a loss, by name, with their defaults."""
    return {each.name: each.default for each in fields(loss)}


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the batch of -log softmax(logits)[label]. logits: (B, C); labels: (B,) int64."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, labels)


def mixed_cross_entropy(
    logits: Tensor, labels: Tensor, prediction: Tensor, weight: float | Tensor
) -> Tensor:
    """Mean of -sum_c t_c log softmax(z)_c, t = (1 - weight) e_label + weight prediction.

    logits z: (B, C) float32; labels: (B,) int64; prediction: classes (B,) int64 or distributions
    (B, C) float32; weight: in [0, 1]. The target t has no gradient.
    """
    from torch.nn.functional import log_softmax, nll_loss

    log_probability = log_softmax(logits, dim=1)  # (B, C)
    towards_label = nll_loss(log_probability, labels)
    if prediction.dim() == 2:
        towards_prediction = -(prediction.detach() * log_probability).sum(dim=1).mean()
    else:
        towards_prediction = nll_loss(log_probability, prediction)
    return (1 - weight) * towards_label + weight * towards_prediction


@dataclass
class CrossEntropy:
    """-log softmax(z)_y, and what every loss has: a name, and a memory of the previous epoch."""

    name = "cross-entropy"  # in flags
    full_name = "cross-entropy"  # in titles
    agreement = None  # lambda of the last batch, a scalar tensor, for a loss that has one

    @property
    def title(self) -> str:
        """The loss in tables and figures: its name, and the flags that are not default."""
        return ", ".join([self.full_name, *(f"{k} {v}" for k, v in self.changed().items())])

    @property
    def slug(self) -> str:
        """The loss in the name of a run."""
        name = {"cross-entropy": "dis0"}.get(self.name, self.name)
        return "-".join([name, *(f"{k}{v}" for k, v in self.changed().items())])

    def changed(self) -> dict[str, str]:
        """The flags that differ from their defaults, as text."""
        values = {k: getattr(self, k) for k in flags_of(type(self))}
        changed = {k: v for k, v in values.items() if v != getattr(type(self), k)}
        return {k: f"{v:g}" if isinstance(v, int | float) else v for k, v in changed.items()}

    def start(self, images: int, all_reduce: Callable[[Tensor], Tensor] = lambda sum: sum) -> None:
        """Begin training; all_reduce sums a tensor over the processes that train together.

        `previous` is what the loss remembers of each image from the epoch before, (images, ...), or
        None; a checkpoint keeps it.
        """
        self.images, self.all_reduce, self.agreement = images, all_reduce, None
        self.previous: Tensor | None = None
        self.current: Tensor | None = None

    def __call__(self, logits: Tensor, labels: Tensor, index: Tensor, share: float = 1) -> Tensor:
        """The objective of a batch, a scalar. Nothing waits for the device.

        logits: (B, C) float32; labels: noisy, (B,) int64; index: the images' places in the training
        set, (B,) int64; share: the part of the whole batch that this process has.
        """
        return cross_entropy(logits, labels)

    def remember(self, index: Tensor, values: Tensor, share: float) -> None:
        """Keep values (B, ...) of the images `index` (B,) for the next epoch."""
        if self.current is None:
            self.current = values.new_zeros(self.images, *values.shape[1:])
        if share:  # a process without images in this batch was given one that is another's
            self.current[index] = values

    def end_epoch(self) -> None:
        """What this epoch remembered is what the next one knows."""
        if self.current is not None:
            self.previous, self.current = self.all_reduce(self.current), None


TEACHERS = ("batch", "previous-epoch", "uniform")


@dataclass
class SelfDistillation(CrossEntropy):
    """Cross-entropy toward a mixture of the noisy label and a teacher's prediction.

    The prediction's weight lambda is the agreement, the fraction of the batch in which it equals
    the noisy label, unless `weight` fixes it. The teachers:

    batch           the network itself: the variant of Dong, Hou, Lu and Zhang (arXiv
                    1910.01255); with a fixed weight, bootstrapping (Reed et al., arXiv 1412.6596)
    previous-epoch  what the network predicted for the image in the previous epoch: our reading of
                    their abstract; the first epoch is cross-entropy
    uniform         the uniform distribution: label smoothing
    """

    name = full_name = "self-distillation"
    teacher: str = flag("batch", "whose prediction to learn from", choices=TEACHERS)
    soft: bool = flag(False, "learn from the teacher's distribution, not its class")
    weight: float | None = flag(None, "fixed lambda; by default the agreement", type=fraction)

    def __post_init__(self):
        if self.teacher == "uniform" and (self.weight is None or self.soft):
            raise UserError("--teacher uniform is label smoothing: add --weight 0.1, drop --soft")

    @property
    def title(self) -> str:
        fixed = self.weight is not None
        words = {
            "batch": ["bootstrapping" if fixed else self.name],
            "previous-epoch": [self.name, "previous epoch"],
            "uniform": ["label smoothing"],
        }[self.teacher]
        words += ["soft"] * self.soft + ([f"weight {self.weight:g}"] if fixed else [])
        return ", ".join(words)

    @property
    def slug(self) -> str:
        words = ["dis1"] + [self.teacher] * (self.teacher != "batch") + ["soft"] * self.soft
        words += [] if self.weight is None else [f"weight{self.weight:g}"]
        return "-".join(words)

    def __call__(self, logits: Tensor, labels: Tensor, index: Tensor, share: float = 1) -> Tensor:
        outputs = logits.detach()
        own = outputs.softmax(dim=1) if self.soft else outputs.argmax(dim=1)
        prediction = own
        if self.teacher == "previous-epoch":
            self.remember(index, own, share)
            if self.previous is None:
                return cross_entropy(logits, labels)
            prediction = self.previous[index]
        elif self.teacher == "uniform":
            prediction = outputs.new_full(outputs.shape, 1 / outputs.shape[1])
        classes = prediction.argmax(dim=1) if prediction.dim() == 2 else prediction
        self.agreement = self.all_reduce(share * (classes == labels).float().mean())
        weight = self.agreement if self.weight is None else self.weight
        return mixed_cross_entropy(logits, labels, prediction, weight)


@dataclass
class GeneralizedCrossEntropy(CrossEntropy):
    """(1 - p_y^q) / q with p = softmax z: eq. 6 of Zhang and Sabuncu (arXiv 1805.07836)."""

    name, full_name = "generalized-cross-entropy", "generalized cross-entropy"
    q: float = flag(0.7, "exponent; 1 is mean absolute error", type=number(0, 1, above=True))

    def __call__(self, logits: Tensor, labels: Tensor, index: Tensor, share: float = 1) -> Tensor:
        from torch.nn.functional import log_softmax, nll_loss

        log_p = -nll_loss(log_softmax(logits, dim=1), labels, reduction="none")  # (B,)
        # 1 - p^q loses its digits where p is near 1; expm1 does not.
        return -(self.q * log_p).expm1().mean() / self.q


PROBABILITY_BOUND = 1e-4  # the authors' clamp, which keeps log(1 - <t, p>) finite


@dataclass
class EarlyLearningRegularization(CrossEntropy):
    """Cross-entropy + strength mean log(1 - <t, p>): eq. 9 of Liu et al. (arXiv 2007.00151).

    p = softmax z, clamped. The target of an image moves once per epoch, from zero and without
    gradient: t <- beta t + (1 - beta) p / sum(p).
    """

    name, full_name = "early-learning-regularization", "early-learning regularization"
    beta: float = flag(0.7, "decay of the targets per epoch", type=decay)
    strength: float = flag(3.0, "weight lambda of the regularization", type=non_negative)

    def __call__(self, logits: Tensor, labels: Tensor, index: Tensor, share: float = 1) -> Tensor:
        p = logits.softmax(dim=1).clamp(PROBABILITY_BOUND, 1 - PROBABILITY_BOUND)  # (B, C)
        fixed = p.detach()
        target = (1 - self.beta) * fixed / fixed.sum(dim=1, keepdim=True)
        if self.previous is not None:
            target = self.beta * self.previous[index] + target
        self.remember(index, target, share)
        regularization = (1 - (target * p).sum(dim=1)).log().mean()
        return cross_entropy(logits, labels) + self.strength * regularization


LOSSES: dict[str, type[CrossEntropy]] = {
    loss.name: loss
    for loss in (
        CrossEntropy,
        SelfDistillation,
        GeneralizedCrossEntropy,
        EarlyLearningRegularization,
    )
}
