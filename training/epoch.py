"""One epoch of training.

Accuracies are percent, losses nats.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from common.errors import UserError
from dataset.batches import training_batches
from training import distributed
from training.settings import RunSettings
from training.statistics import EpochStatistics


class NonFiniteLossError(UserError):
    """A loss or an output is infinite or not a number: training failed, with exit status 1."""

    exit_status = 1

    def __init__(self, problem: str):
        super().__init__(
            f"{problem}; the last good checkpoint stays; try a lower --lr with another --run"
        )


def learning_rate(step: int, total_steps: int, peak: float) -> float:
    """One cosine from `peak` at step 0 to 0 at step `total_steps`."""
    return 0.5 * peak * (1 + math.cos(math.pi * step / total_steps))


def seed_epoch(seed: int, epoch: int) -> torch.Generator:
    """Make the randomness of an epoch a function of (seed, epoch); epoch 0 is the initialization.

    Seeds torch's own generators of all devices, from which the shake coefficients come, and returns
    another, independent one on the CPU for the order and augmentation of the images. Ranks share
    the data order but draw independent shake coefficients.
    """
    model_seed, data_seed = np.random.SeedSequence([seed, epoch]).generate_state(2, np.uint64)
    if epoch and distributed.rank():
        sequence = np.random.SeedSequence([seed, epoch, distributed.rank()])
        model_seed = sequence.generate_state(1, np.uint64)[0]
    torch.manual_seed(int(model_seed))
    return torch.Generator().manual_seed(int(data_seed))


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train_set: list[Tensor],
    settings: RunSettings,
    epoch: int,
    previous: Tensor | None = None,
) -> tuple[dict, Tensor]:
    """Train one epoch, counted from 1.

    train_set: images uint8 (N, H, W, 3), noisy and clean labels int64 (N,), on one device.
    previous: what Loss.remember kept of earlier epochs, for a teacher that needs it.

    Returns the statistics of the training set as seen in this epoch (every image once, augmented,
    in training mode, by the network as it was at that step), and the prediction for each image:
    classes (N,) int64, or distributions (N, C) float32: see Loss.predict. Nothing waits for the
    device before the last step. Raises NonFiniteLossError with epoch and step.
    """
    images, labels, clean_labels = train_set
    device, count = images.device, len(images)
    steps = math.ceil(count / settings.batch_size)
    loss, statistics = settings.loss_function, EpochStatistics(count, settings.batch_size)
    generator = seed_epoch(settings.seed, epoch)
    rank, world_size = distributed.rank(), distributed.world_size()
    batches = training_batches(
        images, settings.batch_size, settings.augment, generator, rank, world_size
    )
    disable = None if distributed.is_main() else True  # None: shown on a terminal only
    progress = tqdm(
        batches, f"epoch {epoch}/{settings.epochs}", steps, leave=False, disable=disable
    )
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=bool(settings.amp))
    model.train()
    for step, (inputs, index) in enumerate(progress):
        rate = learning_rate((epoch - 1) * steps + step, steps * settings.epochs, settings.lr)
        for group in optimizer.param_groups:
            group["lr"] = rate
        share = distributed.share_of_batch(statistics.batch_sizes[step])
        with autocast:
            logits = model(inputs)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        objective, agreement = loss(
            logits,
            labels[index],
            previous=None if previous is None else previous[index],
            average=lambda mean, share=share: distributed.all_reduce_sum(share * mean),
        )
        optimizer.zero_grad()
        # Gradients are means over ranks; the objective is a mean over the batch's images.
        (share * world_size * objective).backward()
        optimizer.step()
        outputs = logits.detach()
        statistics.add(share, objective.detach(), agreement, outputs, labels[index])
        statistics.add_predictions(share, index, loss.predict(outputs))
    predictions = statistics.all_predictions()
    objectives = statistics.objectives()
    if not objectives.isfinite().all():
        step = int((~objectives.isfinite()).nonzero()[0, 0]) + 1
        raise NonFiniteLossError(f"epoch {epoch}, step {step}: the loss is not finite")
    return statistics.summary(objectives, predictions, labels, clean_labels), predictions
