"""One training step as a function of tensors, so that a CUDA graph can record it (graphs.py)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from losses import cross_entropy
from training import distributed
from training.settings import RunSettings

# Objective, plain cross-entropy, agreement or None, predictions.
StepResult = tuple[Tensor, Tensor, Tensor | None, Tensor]


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float | Tensor) -> None:
    """Let the optimizer's next step use this rate: a number, or a float32 scalar on its device."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def training_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, settings: RunSettings
) -> Callable[..., StepResult]:
    """The function that trains one step: it updates the model and says what the step has seen."""
    loss, amp = settings.loss_function, bool(settings.amp)

    def step(
        inputs: Tensor,
        labels: Tensor,
        rate: float | Tensor,
        previous: Tensor | None = None,
        share: float = 1,
    ) -> StepResult:
        """Train on one batch; nothing waits for the device.

        inputs: float32 (B, 3, H, W); labels: int64 (B,); rate: see set_learning_rate; previous: the
        rows for these images of what Loss.remember kept; share: this process's part of the batch.
        Returns scalars, means over this process's images, and predictions (B,) or (B, C).
        """
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=amp):
            logits = model(inputs)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        objective, agreement = loss(
            logits, labels, previous, average=lambda mean: distributed.all_reduce_sum(share * mean)
        )
        optimizer.zero_grad()
        # Gradients are means over ranks; the objective is a mean over the batch's images.
        (share * distributed.world_size() * objective).backward()
        set_learning_rate(optimizer, rate)
        optimizer.step()
        outputs = logits.detach()
        plain = cross_entropy(outputs, labels)
        return objective.detach(), plain, agreement, loss.predict(outputs)

    return step
