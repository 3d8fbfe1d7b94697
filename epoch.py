"""One epoch of training, and what is measured in it.

Accuracies are percent, losses nats.
"""

import math

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from data import normalize, training_batches
from losses import cross_entropy, self_distillation

EVALUATION_BATCH = 500


class NotFiniteError(ArithmeticError):
    """A loss or an output is infinite or not a number."""


def learning_rate(step: int, total_steps: int, peak: float) -> float:
    """One cosine from `peak` at step 0 to 0 at step `total_steps`."""
    return 0.5 * peak * (1 + math.cos(math.pi * step / total_steps))


def seed_epoch(seed: int, epoch: int, device: torch.device) -> torch.Generator:
    """Make the randomness of an epoch a function of (seed, epoch); epoch 0 is the initialisation.

    Seeds torch's own generators, from which the shake coefficients come, and returns another,
    independent one on `device` for the order and augmentation of the images.
    """
    model_seed, data_seed = np.random.SeedSequence([seed, epoch]).generate_state(2, np.uint64)
    torch.manual_seed(int(model_seed))
    return torch.Generator(device).manual_seed(int(data_seed))


def train_epoch(model: nn.Module, optimizer, train_set: list[Tensor], args, epoch: int) -> dict:
    """One epoch, counted from 1, over images uint8 (N, H, W, 3), given and true labels int64 (N,).

    Returns the statistics of the training set as seen in this epoch: every image once, augmented,
    in training mode, by the network as it was at that step. Nothing waits for the device before
    the last step. Raises NotFiniteError with epoch and step.
    """
    images, labels, clean_labels = train_set
    generator = seed_epoch(args.seed, epoch, images.device)
    count = len(images)
    steps = math.ceil(count / args.batch_size)
    objectives, plain, agreements = [], [], []
    predictions = torch.empty_like(labels)
    batches = training_batches(images, args.batch_size, args.augment, generator)
    progress = tqdm(batches, f"epoch {epoch}/{args.epochs}", steps, leave=False, disable=None)
    model.train()
    for step, (inputs, index) in enumerate(progress, start=(epoch - 1) * steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps * args.epochs, args.lr)
        logits, given = model(inputs), labels[index]
        if args.dis:
            objective, agreement = self_distillation(logits, given)
            agreements.append(agreement)
        else:
            objective = cross_entropy(logits, given)
        optimizer.zero_grad()
        objective.backward()
        optimizer.step()
        with torch.no_grad():
            objectives.append(objective.detach())
            plain.append(cross_entropy(logits, given) if args.dis else objective.detach())
            predictions[index] = logits.argmax(dim=1)
    objective_of_step = torch.stack(objectives).double().cpu()
    if not objective_of_step.isfinite().all():
        step = int((~objective_of_step.isfinite()).nonzero()[0, 0]) + 1
        raise NotFiniteError(f"epoch {epoch}, step {step}: the loss is not finite")
    # Batches weigh by their images: the last may be smaller.
    weight = torch.full((steps,), args.batch_size / count, dtype=torch.float64)
    weight[-1] = 1 - weight[:-1].sum()
    labelled = label_agreement(predictions, labels, clean_labels)
    return {
        "train_objective": float(weight @ objective_of_step),
        "train_cross_entropy": float(weight @ torch.stack(plain).double().cpu()),
        "train_accuracy": labelled["accuracy"],
        "train_clean_accuracy": labelled["clean_accuracy"],
        "memorized": labelled["memorized"],
        "agreement": float(weight @ torch.stack(agreements).double().cpu()) if args.dis else None,
    }


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
    return torch.cat([model(normalize(batch)) for batch in images.split(EVALUATION_BATCH)])
