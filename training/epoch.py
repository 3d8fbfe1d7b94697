"""One epoch of training.

Accuracies are percent, losses nats.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from common.errors import UserError
from dataset.batches import training_batches
from training import distributed
from training.settings import RunSettings
from training.statistics import EpochStatistics
from training.step import StepResult, set_learning_rate, training_step


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
    step: Callable[..., StepResult] | None = None,
    average: AveragedModel | None = None,
) -> tuple[dict, Tensor]:
    """Train one epoch, counted from 1.

    train_set: images uint8 (N, H, W, 3), noisy and clean labels int64 (N,), on one device.
    previous: what Loss.remember kept of earlier epochs, for a teacher that needs it. step: the
    training step of this model and optimizer, if it outlives the epoch: a GraphedStep. average: the
    averaged weights, which follow each step.

    Returns the statistics of the training set as seen in this epoch (every image once, augmented,
    in training mode, by the network as it was at that step), and the prediction for each image:
    classes (N,) int64, or distributions (N, C) float32: see Loss.predict. Nothing waits for the
    device before the last step. Raises NonFiniteLossError with epoch and step.
    """
    images, labels, clean_labels = train_set
    device, count = images.device, len(images)
    steps = math.ceil(count / settings.batch_size)
    total_steps = steps * settings.epochs
    rates = [learning_rate((epoch - 1) * steps + k, total_steps, settings.lr) for k in range(steps)]
    # A recorded step reads its learning rate on the device.
    step_rates = torch.tensor(rates, device=device) if settings.cuda_graphs else rates
    step = step or training_step(model, optimizer, settings)
    statistics = EpochStatistics(count, settings.batch_size)
    generator = seed_epoch(settings.seed, epoch)
    rank, world_size = distributed.rank(), distributed.world_size()
    batches = training_batches(
        images, settings.batch_size, settings.augment, generator, rank, world_size
    )
    disable = None if distributed.is_main() else True  # None: shown on a terminal only
    progress = tqdm(
        batches, f"epoch {epoch}/{settings.epochs}", steps, leave=False, disable=disable
    )
    model.train()
    for k, (inputs, index) in enumerate(progress):
        share = distributed.share_of_batch(statistics.batch_sizes[k])
        taught = () if previous is None else (previous[index],)
        *scalars, predictions = step(inputs, labels[index], step_rates[k], *taught, share=share)
        if average:
            average.update_parameters(getattr(model, "module", model))  # of DistributedDataParallel
        statistics.add(share, *scalars)
        statistics.add_predictions(share, index, predictions)
    set_learning_rate(optimizer, rates[-1])  # a number for the checkpoint
    predictions = statistics.all_predictions()
    objectives = statistics.objectives()
    if not objectives.isfinite().all():
        first = int((~objectives.isfinite()).nonzero()[0, 0]) + 1
        raise NonFiniteLossError(f"epoch {epoch}, step {first}: the loss is not finite")
    return statistics.summary(objectives, predictions, labels, clean_labels), predictions
