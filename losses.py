"""The two losses that are compared: plain cross-entropy and self-distillation.

Both take logits (N, C) float32 and given labels (N,) int64 and return scalars on their device.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the batch of -log softmax(logits)[label], in nats.

    logits: (N, C) float32; labels: (N,) int64. Returns a scalar.
    """
    return F.cross_entropy(logits, labels)


def self_distillation(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy towards a mixture of the given label and the network's own prediction.

    With e_k the k-th unit vector, y the given label and p = argmax z of the logits z:

        lambda = mean over the batch of (p == y)           the batch's agreement
        t      = (1 - lambda) e_y + lambda e_p             the target, without gradient
        loss   = mean over the batch of -sum_c t_c log softmax(z)_c, in nats

    This is the variant of the authors of Dong, Hou, Lu, Zhang, "Distillation ~ Early Stopping?"
    (arXiv 1910.01255) that the original repository trains with; there KL(t || softmax z) is
    reported, which has the same gradient but is smaller by the entropy of t.

    logits: (N, C) float32; labels: (N,) int64. Returns the loss, differentiable in the logits, and
    lambda, in [0, 1], without gradient; both scalars stay on the device.
    """
    log_probability = F.log_softmax(logits, dim=1)  # (N, C)
    prediction = logits.detach().argmax(dim=1)  # (N,)
    agreement = (prediction == labels).to(logits.dtype).mean()
    towards_label = F.nll_loss(log_probability, labels)
    towards_prediction = F.nll_loss(log_probability, prediction)
    return torch.lerp(towards_label, towards_prediction, agreement), agreement
