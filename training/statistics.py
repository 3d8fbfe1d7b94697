"""What is measured while an epoch trains, without waiting for the device, and after it.

Accuracies are percent, losses nats.
"""

import torch
from torch import Tensor, nn

from dataset.batches import normalize
from losses import most_likely
from training import distributed

# Small enough that a layer's outputs stay in a CPU's cache: 500 takes nearly twice the time.
EVALUATION_BATCH = {"cpu": 125, "cuda": 2000}


class EpochStatistics:
    """Device scalars of each step of an epoch, and the prediction for each training image."""

    def __init__(self, count: int, batch_size: int):
        self.count = count
        self.batch_sizes = [min(batch_size, count - k) for k in range(0, count, batch_size)]
        self._objectives: list[Tensor] = []
        self._cross_entropies: list[Tensor] = []
        self._agreements: list[Tensor] = []
        self._predictions: Tensor | None = None

    def add(self, share: float, objective: Tensor, plain: Tensor, agreement: Tensor | None) -> None:
        """Add a step: this rank's share of the batch, its objective, the batch's agreement.

        objective, plain: means over the rank's images of the loss and of the cross-entropy.
        """
        self._objectives.append(share * objective)
        self._cross_entropies.append(share * plain)
        if agreement is not None:
            self._agreements.append(agreement)

    def add_predictions(self, share: float, index: Tensor, predictions: Tensor) -> None:
        """Add the predictions (B,) or (B, C) for the images `index` (B,)."""
        if self._predictions is None:
            self._predictions = predictions.new_zeros(self.count, *predictions.shape[1:])
        if share:  # a rank without images in this batch was given one that is another rank's
            self._predictions[index] = predictions

    def all_predictions(self) -> Tensor:
        """The predictions for all training images, of all ranks: (N,) or (N, C)."""
        return distributed.all_reduce_sum(self._predictions)

    def objectives(self) -> Tensor:
        """The objective of each step, a mean over the whole batch: float64 (steps,) on the CPU."""
        return distributed.all_reduce_sum(torch.stack(self._objectives).double()).cpu()

    def summary(
        self, objectives: Tensor, predictions: Tensor, labels: Tensor, clean_labels: Tensor
    ) -> dict[str, float | None]:
        """The epoch's record. objectives (steps,); predictions (N,) or (N, C); labels (N,)."""
        batch_fractions = self._batch_fractions()
        cross_entropies = torch.stack(self._cross_entropies).double()
        cross_entropies = distributed.all_reduce_sum(cross_entropies).cpu()
        agreement = None
        if self._agreements:
            agreement = float(batch_fractions @ torch.stack(self._agreements).double().cpu())
        predictions = most_likely(predictions)
        return {
            "train_objective": float(batch_fractions @ objectives),
            "train_cross_entropy": float(batch_fractions @ cross_entropies),
            "train_accuracy": percent(predictions == labels),
            "train_clean_accuracy": percent(predictions == clean_labels),
            "agreement": agreement,
        }

    def _batch_fractions(self) -> Tensor:
        """The share of the epoch's images in each batch, float64 (steps,), with sum 1."""
        fraction = self.batch_sizes[0] / self.count
        fractions = torch.full((len(self.batch_sizes),), fraction, dtype=torch.float64)
        fractions[-1] = 1 - fractions[:-1].sum()
        return fractions


def label_agreement(predictions: Tensor, labels: Tensor, clean: Tensor) -> dict[str, float | None]:
    """Percent of predictions (N,) that are equal to the noisy and to the clean labels.

    `memorized` is the percentage of images with a wrong label that are predicted as this label.
    `clean_accuracy_right` and `clean_accuracy_wrong` are the accuracies on the clean labels among
    the images with a right and with a wrong label; their difference is the memorization gap. None
    where there is no such image.
    """
    wrong = labels != clean
    return {
        "accuracy": percent(predictions == labels),
        "clean_accuracy": percent(predictions == clean),
        "memorized": percent((predictions == labels)[wrong]) if wrong.any() else None,
        "clean_accuracy_right": percent((predictions == clean)[~wrong]) if (~wrong).any() else None,
        "clean_accuracy_wrong": percent((predictions == clean)[wrong]) if wrong.any() else None,
    }


def percent(correct: Tensor) -> float:
    """The percentage of True in a tensor (N,)."""
    return 100 * int(correct.sum()) / len(correct)


@torch.inference_mode()
def evaluate(model: nn.Module, images: Tensor) -> Tensor:
    """Logits float32 (N, C) in eval mode of images uint8 (N, H, W, 3)."""
    model.eval()
    rank, world_size = distributed.rank(), distributed.world_size()
    batches = images[rank::world_size].split(EVALUATION_BATCH[images.device.type])
    outputs = torch.cat([model(normalize(batch)) for batch in batches]).float()
    if world_size == 1:
        return outputs
    logits = outputs.new_zeros(len(images), outputs.shape[1])
    logits[rank::world_size] = outputs
    return distributed.all_reduce_sum(logits)
