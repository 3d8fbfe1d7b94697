"""The losses, their teachers and their names: the one place where a loss is added.

A loss is a function of logits (N, C) float32 and noisy labels (N,) int64 that returns a scalar on
their device. LOSSES lists the losses by the name that `train.py --loss` takes. Self-distillation
also needs a prediction: TEACHERS lists where it comes from.
"""

# The names are needed by --help, which should not wait for torch: functions import it themselves.
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from common.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the batch of -log softmax(logits)[label], in nats.

    logits: (N, C) float32; labels: (N,) int64. Returns a scalar.
    """
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, labels)


def agreement(prediction: Tensor, labels: Tensor) -> Tensor:
    """lambda: the share of the batch whose prediction equals the noisy label, a scalar.

    prediction: classes (N,) int64, or a distribution (N, C), whose largest class counts.
    """
    return (most_likely(prediction) == labels).float().mean()


def most_likely(prediction: Tensor) -> Tensor:
    """Classes (N,) int64 of predictions: classes (N,) already, or a distribution (N, C)."""
    return prediction.argmax(dim=1) if prediction.dim() == 2 else prediction


def self_distillation(
    logits: Tensor, labels: Tensor, prediction: Tensor, weight: float | Tensor
) -> Tensor:
    """Cross-entropy toward a mixture of the noisy label and a prediction.

    With e_k the k-th unit vector, y the noisy label, p a predicted class (or e_p the predicted
    distribution) and lambda the weight, for logits z:

        t    = (1 - lambda) e_y + lambda e_p               the target, without gradient
        loss = mean over the batch of -sum_c t_c log softmax(z)_c, in nats

    With p = argmax z and lambda = `agreement`(p, y) this is the variant of the authors of Dong,
    Hou, Lu, Zhang, "Distillation ~ Early Stopping?" (arXiv 1910.01255) that the original repository
    trains with; it reports KL(t || softmax z), which has the same gradient but is smaller by the
    entropy of t. With p from the previous epoch it is what their abstract describes. With the
    network's own p and a fixed lambda it is bootstrapping (Reed et al., arXiv 1412.6596). With the
    uniform distribution it is label smoothing.

    logits: (N, C) float32; labels: (N,) int64; prediction: (N,) int64 or (N, C) float32; weight: a
    number or a scalar tensor in [0, 1]. Returns the loss, differentiable in the logits.
    """
    from torch.nn.functional import log_softmax, nll_loss

    log_probability = log_softmax(logits, dim=1)  # (N, C)
    towards_label = nll_loss(log_probability, labels)
    if prediction.dim() == 2:
        towards_prediction = -(prediction.detach() * log_probability).sum(dim=1).mean()
    else:
        towards_prediction = nll_loss(log_probability, prediction)
    return (1 - weight) * towards_label + weight * towards_prediction


CROSS_ENTROPY, SELF_DISTILLATION = "cross-entropy", "self-distillation"
AVERAGED = "previous-epochs"  # the teacher that needs a momentum
LOSSES: dict[str, Callable[..., Tensor]] = {
    CROSS_ENTROPY: cross_entropy,
    SELF_DISTILLATION: self_distillation,
}


# A teacher takes the network's own prediction for the batch, and what Loss.remember kept of the
# predictions for the same images in earlier epochs (None in the first epoch). It returns the
# prediction to learn from, (N,) or (N, C), or None if there is none yet.


def batch_teacher(own: Tensor, previous: Tensor | None, logits: Tensor) -> Tensor | None:
    """The network's own prediction in this batch: what the original trains with."""
    return own


def previous_epoch_teacher(own: Tensor, previous: Tensor | None, logits: Tensor) -> Tensor | None:
    """What the network predicted for the image in the previous epoch: the abstract's teacher."""
    return previous


def uniform_teacher(own: Tensor, previous: Tensor | None, logits: Tensor) -> Tensor | None:
    """The uniform distribution (N, C): label smoothing."""
    return logits.new_full(logits.shape, 1 / logits.shape[1])


def previous_epochs_teacher(own: Tensor, previous: Tensor | None, logits: Tensor) -> Tensor | None:
    """The moving average of the network's predictions for the image in all earlier epochs."""
    return previous


TEACHERS: dict[str, Callable[..., Tensor | None]] = {
    "batch": batch_teacher,
    "previous-epoch": previous_epoch_teacher,
    AVERAGED: previous_epochs_teacher,
    "uniform": uniform_teacher,
}


@dataclass(frozen=True)
class Loss:
    """A loss as train.py's flags choose it. Raises UserError if they contradict each other."""

    name: str = CROSS_ENTROPY
    teacher: str = "batch"
    soft: bool = False  # the teacher's distribution instead of its most likely class
    weight: float | None = None  # fixed lambda; None: the agreement within the batch
    momentum: float | None = None  # of the averaged teacher: the weight of earlier epochs

    def __post_init__(self):
        options = (self.teacher, self.soft, self.weight, self.momentum)
        if self.name != SELF_DISTILLATION and options != ("batch", False, None, None):
            raise UserError(
                "--teacher, --soft, --weight and --momentum belong to self-distillation; add "
                "--dis=1"
            )
        if self.teacher == AVERAGED and (self.momentum is None or self.momentum == 1):
            raise UserError(f"--teacher {AVERAGED} needs --momentum below 1, such as 0.9")
        if self.teacher != AVERAGED and self.momentum is not None:
            raise UserError(f"--momentum belongs to the averaged teacher; add --teacher {AVERAGED}")
        if self.teacher == "uniform" and (self.weight is None or self.soft):
            raise UserError("--teacher uniform is label smoothing: add --weight, drop --soft")

    def __call__(
        self,
        logits: Tensor,
        labels: Tensor,
        previous: Tensor | None = None,
        average: Callable[[Tensor], Tensor] = lambda value: value,
    ) -> tuple[Tensor, Tensor | None]:
        """The objective of a batch, and lambda if a teacher gave a prediction.

        logits: (N, C) float32; labels: (N,) int64; previous: the rows for these images of what
        `remember` returned, or None; average: turns a mean over this process's images into the
        mean over the whole batch. Returns scalars; nothing waits for the device.
        """
        if self.name != SELF_DISTILLATION:
            return LOSSES[self.name](logits, labels), None
        outputs = logits.detach()
        if previous is not None and not self.soft:
            previous = most_likely(previous)
        prediction = TEACHERS[self.teacher](self.predict(outputs), previous, outputs)
        if prediction is None:
            return cross_entropy(logits, labels), None
        agreed = average(agreement(prediction, labels))
        weight = agreed if self.weight is None else self.weight
        return self_distillation(logits, labels, prediction, weight), agreed

    def predict(self, outputs: Tensor) -> Tensor:
        """Predictions of outputs (N, C): classes (N,) int64, or distributions (N, C) float32.

        Distributions if the loss is soft, and for the averaged teacher, whose classes are those of
        the average.
        """
        if self.soft or self.teacher == AVERAGED:
            return outputs.softmax(dim=1)
        return outputs.argmax(dim=1)

    def remember(self, previous: Tensor | None, predictions: Tensor, epoch: int) -> Tensor | None:
        """What the next epoch needs from the predictions of this and earlier epochs, or None.

        previous: what the previous epoch returned here; predictions: those of all N training
        images in this epoch, counted from 1. For the averaged teacher, with momentum m and z_e the
        distributions (N, C) predicted in epoch e, temporal ensembling's average (Laine, Aila,
        arXiv 1610.02242) corrected for its start from 0:

            Z_t / (1 - m^t),    Z_t = m Z_(t-1) + (1 - m) z_t,    Z_0 = 0
        """
        if self.teacher not in ("previous-epoch", AVERAGED):
            return None
        if self.teacher != AVERAGED or previous is None:
            return predictions
        return previous.lerp(predictions, (1 - self.momentum) / (1 - self.momentum**epoch))

    @property
    def title(self) -> str:
        """What figures and tables call the loss."""
        if self.name != SELF_DISTILLATION:
            return self.name
        fixed = self.weight is not None
        title = {
            "batch": "bootstrapping" if fixed else SELF_DISTILLATION,
            "previous-epoch": f"{SELF_DISTILLATION}, previous epoch",
            AVERAGED: f"{SELF_DISTILLATION}, previous epochs, momentum {self.momentum or 0:g}",
            "uniform": "label smoothing",
        }[self.teacher]
        return (
            title + (", soft" if self.soft else "") + (f", weight {self.weight:g}" if fixed else "")
        )

    @property
    def slug(self) -> str:
        """The loss in the name of a run, such as dis1-previous-epoch-soft."""
        short = {CROSS_ENTROPY: "dis0", SELF_DISTILLATION: "dis1"}
        words = [short.get(self.name, self.name)]
        if self.teacher != "batch":
            words.append(self.teacher)
        if self.momentum is not None:
            words.append(f"momentum{self.momentum:g}")
        if self.soft:
            words.append("soft")
        if self.weight is not None:
            words.append(f"weight{self.weight:g}")
        return "-".join(words)
