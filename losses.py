"""The two losses that are compared: plain cross-entropy and self-distillation.

Both take logits (N, C) float32 and given labels (N,) int64 and return scalars on their device.
"""

import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the batch of -log softmax(logits)[label], in nats.

    logits: (N, C) float32; labels: (N,) int64. Returns a scalar.
    """
    return F.cross_entropy(logits, labels)


def agreement(prediction: Tensor, labels: Tensor) -> Tensor:
    """lambda: the share of the batch that `prediction` and the given labels agree on, a scalar.

    prediction: classes (N,) int64, or a distribution (N, C), of which the largest counts.
    """
    classes = prediction.argmax(dim=1) if prediction.dim() == 2 else prediction
    return (classes == labels).float().mean()


def self_distillation(logits: Tensor, labels: Tensor, prediction: Tensor, weight) -> Tensor:
    """Cross-entropy towards a mixture of the given label and a prediction.

    With e_k the k-th unit vector, y the given label, p a predicted class (or e_p the predicted
    distribution) and lambda the weight, for logits z:

        t    = (1 - lambda) e_y + lambda e_p               the target, without gradient
        loss = mean over the batch of -sum_c t_c log softmax(z)_c, in nats

    With p = argmax z and lambda = `agreement`(p, y) this is the variant of the authors of Dong,
    Hou, Lu, Zhang, "Distillation ~ Early Stopping?" (arXiv 1910.01255) that the original repository
    trains with; there KL(t || softmax z) is reported, which has the same gradient but is smaller by
    the entropy of t. With p from the epoch before it is what their abstract speaks of. With p = z's
    own and a fixed lambda it is bootstrapping (Reed et al., arXiv 1412.6596), with the uniform
    distribution label smoothing.

    logits: (N, C) float32; labels: (N,) int64; prediction: (N,) int64 or (N, C) float32; weight: a
    number or a scalar tensor in [0, 1]. Returns the loss, differentiable in the logits.
    """
    log_probability = F.log_softmax(logits, dim=1)  # (N, C)
    towards_label = F.nll_loss(log_probability, labels)
    if prediction.dim() == 2:
        towards_prediction = -(prediction.detach() * log_probability).sum(dim=1).mean()
    else:
        towards_prediction = F.nll_loss(log_probability, prediction)
    return (1 - weight) * towards_label + weight * towards_prediction
