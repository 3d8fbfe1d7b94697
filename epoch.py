"""One epoch of training, and what is measured in it.

Accuracies are percent, losses nats.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import processes
from data import normalize, training_batches
from losses import agreement, cross_entropy, self_distillation

# Small enough that what a layer leaves stays in a CPU's cache: 500 takes nearly twice the time.
EVALUATION_BATCH = {"cpu": 125, "cuda": 2000}


class NotFiniteError(ArithmeticError):
    """A loss or an output is infinite or not a number."""


def learning_rate(step: int, total_steps: int, peak: float) -> float:
    """One cosine from `peak` at step 0 to 0 at step `total_steps`."""
    return 0.5 * peak * (1 + math.cos(math.pi * step / total_steps))


def seed_epoch(seed: int, epoch: int, device: torch.device) -> torch.Generator:
    """Make the randomness of an epoch a function of (seed, epoch); epoch 0 is the initialisation.

    Seeds torch's own generators, from which the shake coefficients come, and returns another,
    independent one on `device` for the order and augmentation of the images. Of several processes
    each draws coefficients of its own, all draw the same order.
    """
    model_seed, data_seed = np.random.SeedSequence([seed, epoch]).generate_state(2, np.uint64)
    if epoch and processes.rank():
        own = np.random.SeedSequence([seed, epoch, processes.rank()])
        model_seed = own.generate_state(1, np.uint64)[0]
    torch.manual_seed(int(model_seed))
    return torch.Generator(device).manual_seed(int(data_seed))


def teacher_prediction(args, logits: Tensor, index: Tensor, previous: Tensor | None) -> Tensor:
    """What --teacher predicts for a batch: classes (B,) int64 or, soft, a distribution (B, C).

    logits (B, C): the batch's, without gradient; index (B,): which images they are of; previous:
    what the epoch before predicted for all images, None in the first epoch.
    """
    if args.teacher == "previous-epoch":
        return previous[index]
    if args.teacher == "uniform":
        return torch.full_like(logits, 1 / logits.shape[1])
    return logits.softmax(dim=1) if args.soft else logits.argmax(dim=1)


def train_epoch(
    model: nn.Module,
    optimizer,
    train_set: list[Tensor],
    args,
    epoch: int,
    previous: Tensor | None = None,
) -> tuple[dict, Tensor]:
    """One epoch, counted from 1, over images uint8 (N, H, W, 3), given and true labels int64 (N,).

    Returns the statistics of the training set as seen in this epoch: every image once, augmented,
    in training mode, by the network as it was at that step; and what it predicted for each image
    then, to be passed as `previous` to the next epoch: classes (N,) int64, or with args.soft
    distributions (N, C) float32. Nothing waits for the device before the last step. Raises
    NotFiniteError with epoch and step.
    """
    images, labels, clean_labels = train_set
    generator = seed_epoch(args.seed, epoch, images.device)
    count = len(images)
    steps = math.ceil(count / args.batch_size)
    objectives, plain, agreements = [], [], []
    predictions = None
    # The first epoch has no teacher in the epoch before: it is plain.
    distils = args.dis and (args.teacher != "previous-epoch" or previous is not None)
    part = processes.rank(), processes.count()
    batches = training_batches(images, args.batch_size, args.augment, generator, part)
    quiet = None if processes.is_main() else True  # None: on a terminal only
    progress = tqdm(batches, f"epoch {epoch}/{args.epochs}", steps, leave=False, disable=quiet)
    autocast = torch.autocast(images.device.type, torch.bfloat16, enabled=args.amp)
    model.train()
    for step, (inputs, index) in enumerate(progress, start=(epoch - 1) * steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps * args.epochs, args.lr)
        # This process's share of the batch: its images are every so many of them.
        batch_size = min(args.batch_size, count - (step % steps) * args.batch_size)
        mine = len(range(part[0], batch_size, part[1])) / batch_size
        with autocast:
            logits = model(inputs)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        given, outputs = labels[index], logits.detach()
        if distils:
            prediction = teacher_prediction(args, outputs, index, previous)
            agreements.append(processes.add_up(mine * agreement(prediction, given)))
            mixing = agreements[-1] if args.weight is None else args.weight
            objective = self_distillation(logits, given, prediction, mixing)
        else:
            objective = cross_entropy(logits, given)
        optimizer.zero_grad()
        # Gradients are means over processes, the objective is a mean over the batch's images.
        (mine * part[1] * objective).backward()
        optimizer.step()
        objectives.append(mine * objective.detach())
        plain.append(mine * cross_entropy(outputs, given) if distils else objectives[-1])
        predicted = outputs.softmax(dim=1) if args.soft else outputs.argmax(dim=1)
        if predictions is None:
            predictions = predicted.new_zeros(count, *predicted.shape[1:])
        if mine:
            predictions[index] = predicted
    predictions = processes.add_up(predictions)
    objective_of_step = processes.add_up(torch.stack(objectives).double()).cpu()
    if not objective_of_step.isfinite().all():
        step = int((~objective_of_step.isfinite()).nonzero()[0, 0]) + 1
        raise NotFiniteError(f"epoch {epoch}, step {step}: the loss is not finite")
    # Batches weigh by their images: the last may be smaller.
    weight = torch.full((steps,), args.batch_size / count, dtype=torch.float64)
    weight[-1] = 1 - weight[:-1].sum()
    classes = predictions.argmax(dim=1) if args.soft else predictions
    labelled = label_agreement(classes, labels, clean_labels)
    statistics = {
        "train_objective": float(weight @ objective_of_step),
        "train_cross_entropy": float(weight @ processes.add_up(torch.stack(plain).double()).cpu()),
        "train_accuracy": labelled["accuracy"],
        "train_clean_accuracy": labelled["clean_accuracy"],
        "memorized": labelled["memorized"],
        "agreement": float(weight @ torch.stack(agreements).double().cpu()) if distils else None,
    }
    return statistics, predictions


def label_agreement(predictions: Tensor, given: Tensor, true: Tensor) -> dict[str, float | None]:
    """Percent of predictions (N,) equal to the given and to the true labels, and `memorized`.

    The last is the share of wrongly labelled images predicted as their wrong label; None where no
    label is wrong.
    """
    wrong = given != true
    return {
        "accuracy": percent(predictions == given),
        "clean_accuracy": percent(predictions == true),
        "memorized": percent((predictions == given)[wrong]) if wrong.any() else None,
    }


def percent(correct: Tensor) -> float:
    return 100 * int(correct.sum()) / len(correct)


@torch.inference_mode()
def evaluate(model: nn.Module, images: Tensor) -> Tensor:
    """Logits float32 (N, C) in eval mode of images uint8 (N, H, W, 3)."""
    model.eval()
    rank, parts = processes.rank(), processes.count()
    batches = images[rank::parts].split(EVALUATION_BATCH[images.device.type])
    mine = torch.cat([model(normalize(batch)) for batch in batches]).float()
    if parts == 1:
        return mine
    logits = mine.new_zeros(len(images), mine.shape[1])
    logits[rank::parts] = mine
    return processes.add_up(logits)
