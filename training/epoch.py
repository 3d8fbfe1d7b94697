"""One epoch: its randomness, its steps, what is seen while it trains, and what is measured after.

Accuracies are percent, losses nats.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from common.command_line import UserError
from dataset.batches import normalize, training_batches
from losses import cross_entropy
from training import distributed
from training.checkpoint import Trained
from training.settings import RunSettings

# Small enough that a layer's outputs stay in a CPU's cache: 500 takes nearly twice the time.
EVALUATION_BATCH = {"cpu": 125, "cuda": 2000}


class NonFiniteLossError(UserError):
    """A loss or an output is infinite or not a number: training failed, with exit status 1."""

    exit_status = 1

    def __init__(self, what: str):
        super().__init__(f"{what}; the last checkpoint stays; try a lower --lr with another --run")


def learning_rate(step: int, total_steps: int, peak: float) -> float:
    """One cosine from `peak` at step 0 to 0 at step `total_steps`."""
    return 0.5 * peak * (1 + math.cos(math.pi * step / total_steps))


def seed_epoch(seed: int, epoch: int) -> torch.Generator:
    """Make the randomness of an epoch a function of (seed, epoch); epoch 0 is the initialization.

    Seeds torch's generators, from which the shake coefficients come, for each rank by itself, and
    returns one on the CPU for the images' order and augmentation, which ranks share.
    """
    model_seed, data_seed = np.random.SeedSequence([seed, epoch]).generate_state(2, np.uint64)
    if epoch and distributed.rank():
        sequence = np.random.SeedSequence([seed, epoch, distributed.rank()])
        model_seed = sequence.generate_state(1, np.uint64)[0]
    torch.manual_seed(int(model_seed))
    return torch.Generator().manual_seed(int(data_seed))


def train_epoch(
    trained: Trained, train_set: list[Tensor], settings: RunSettings, epoch: int
) -> dict[str, float | None]:
    """Train one epoch, counted from 1; returns its record. Raises NonFiniteLossError.

    train_set: images uint8 (N, H, W, 3), noisy and clean labels int64 (N,), on one device. The
    record is of the training set as seen in the steps: augmented, in training mode. Nothing waits
    for the device before the last step.
    """
    images, labels, clean_labels = train_set
    count, size, loss = len(images), settings.batch_size, trained.loss
    sizes = [min(size, count - first) for first in range(0, count, size)]  # of each batch
    steps, scalars = len(sizes), []
    predictions = torch.zeros_like(labels)
    trained.model.train()
    for k, (inputs, index) in enumerate(epoch_batches(images, settings, epoch)):
        share = distributed.share_of_batch(sizes[k])
        rate = learning_rate((epoch - 1) * steps + k, steps * settings.epochs, settings.lr)
        for group in trained.optimizer.param_groups:
            group["lr"] = rate
        # One shape is compiled: the last, smaller batch runs as it is.
        with eager(sizes[k] != sizes[0]):
            logits, objective = train_step(
                trained, inputs, labels[index], index, share, settings.amp
            )
        plain = cross_entropy(logits, labels[index])
        scalars.append(torch.stack([share * objective, share * plain]))
        if loss.agreement is not None:
            scalars[-1] = torch.cat([scalars[-1], loss.agreement[None]])
        if share:
            predictions[index] = logits.argmax(dim=1)
    loss.end_epoch()
    distributed.all_reduce_sum(predictions)
    values = torch.stack(scalars).double()  # (steps, 2 or 3)
    values[:, :2] = distributed.all_reduce_sum(values[:, :2].contiguous())
    values = values.cpu()
    if not values[:, 0].isfinite().all():
        first = int((~values[:, 0].isfinite()).nonzero()[0, 0]) + 1
        raise NonFiniteLossError(f"epoch {epoch}, step {first}: the loss is not finite")
    means = weighted_means(values, sizes)
    return {
        "train_objective": means[0],
        "train_cross_entropy": means[1],
        "train_accuracy": percent(predictions == labels),
        "train_clean_accuracy": percent(predictions == clean_labels),
        "agreement": means[2] if len(means) == 3 else None,
    }


def train_step(
    trained: Trained, inputs: Tensor, labels: Tensor, index: Tensor, share: float, amp: bool | None
) -> tuple[Tensor, Tensor]:
    """Train on one batch; returns logits (B, C) and the objective, both without gradient.

    inputs: float32 (B, 3, H, W); labels, index: int64 (B,); share: this process's part of the
    batch; amp: whether the network computes in bfloat16.
    """
    model, optimizer = trained.model, trained.optimizer
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bool(amp)):
        logits = model(inputs)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    objective = trained.loss(logits, labels, index, share)
    optimizer.zero_grad()
    # Gradients are means over ranks; the objective is a mean over the batch's images.
    (share * distributed.world_size() * objective).backward()
    optimizer.step()
    if trained.average:
        trained.average.update_parameters(getattr(model, "module", model))  # of the processes' DDP
    return logits.detach(), objective.detach()


def epoch_batches(
    images: Tensor, settings: RunSettings, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """This process's batches of an epoch, with a progress bar on a terminal."""
    rank, world_size = distributed.rank(), distributed.world_size()
    generator = seed_epoch(settings.seed, epoch)
    batches = training_batches(
        images, settings.batch_size, settings.augment, generator, rank, world_size
    )
    disable = None if distributed.is_main() else True  # None: shown on a terminal only
    total = math.ceil(len(images) / settings.batch_size)
    yield from tqdm(batches, f"epoch {epoch}/{settings.epochs}", total, False, disable=disable)


def weighted_means(values: Tensor, sizes: list[int]) -> list[float]:
    """Means of the steps' values float64 (steps, K), weighted by their batches' sizes."""
    fractions = torch.full((len(sizes),), sizes[0] / sum(sizes), dtype=torch.float64)
    fractions[-1] = 1 - fractions[:-1].sum()
    return (fractions @ values).tolist()


def eager(enabled: bool):
    """A block in which a compiled network runs as it is, if enabled."""
    return torch.compiler.set_stance("force_eager" if enabled else "default")


@torch.inference_mode()
def evaluate(model: nn.Module, images: Tensor) -> Tensor:
    """Logits float32 (N, C) in eval mode of images uint8 (N, H, W, 3)."""
    model.eval()
    rank, world_size = distributed.rank(), distributed.world_size()
    batches = images[rank::world_size].split(EVALUATION_BATCH[images.device.type])
    with eager(True):
        outputs = torch.cat([model(normalize(batch)) for batch in batches]).float()
    if world_size == 1:
        return outputs
    logits = outputs.new_zeros(len(images), outputs.shape[1])
    logits[rank::world_size] = outputs
    return distributed.all_reduce_sum(logits)


def label_agreement(predictions: Tensor, labels: Tensor, clean: Tensor) -> dict[str, float | None]:
    """Percent of predictions (N,) that equal the noisy and the clean labels: docs/method.md.

    None where there is no image whose label is right, or wrong.
    """
    wrong = labels != clean
    return {
        "accuracy": percent(predictions == labels),
        "clean_accuracy": percent(predictions == clean),
        "memorized": percent((predictions == labels)[wrong]),
        "clean_accuracy_right": percent((predictions == clean)[~wrong]),
        "clean_accuracy_wrong": percent((predictions == clean)[wrong]),
    }


def percent(correct: Tensor) -> float | None:
    """The percentage of True in a tensor (N,); None if it is empty."""
    return 100 * int(correct.sum()) / len(correct) if len(correct) else None
