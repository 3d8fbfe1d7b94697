"""Every loss of losses.py again, by loops in float64 with numpy: objective, gradient, agreement."""

import numpy as np
from references import softmax


class SlowLoss:
    """The loss whose flags `loss` has, with a memory of its own for each image."""

    def __init__(self, loss):
        self.loss, self.previous, self.current = loss, {}, {}

    def __call__(self, logits, labels, index):
        """Objective, gradient (B, C) and agreement, or None, of logits (B, C)."""
        method = getattr(self, self.loss.name.replace("-", "_"))
        return method(softmax(logits), labels, index)

    def end_epoch(self):
        self.previous, self.current = self.current, {}

    def cross_entropy(self, p, labels, index):
        objective, gradient = 0.0, p / len(p)
        for i, label in enumerate(labels):
            objective -= np.log(p[i, label]) / len(p)
            gradient[i, label] -= 1 / len(p)
        return objective, gradient, None

    def self_distillation(self, p, labels, index):
        loss, (count, classes) = self.loss, p.shape
        unit, taught = np.eye(classes), []
        for i, image in enumerate(index):
            own = p[i] if loss.soft else unit[p[i].argmax()]
            self.current[image] = own
            if loss.teacher == "uniform":
                taught.append(np.full(classes, 1 / classes))
            elif loss.teacher == "batch":
                taught.append(own)
            elif self.previous:
                taught.append(self.previous[image])
        if not taught:
            return self.cross_entropy(p, labels, index)
        agreement = sum(t.argmax() == y for t, y in zip(taught, labels, strict=True)) / count
        weight = agreement if loss.weight is None else loss.weight
        objective, gradient = 0.0, np.zeros_like(p)
        for i, label in enumerate(labels):
            target = (1 - weight) * unit[label] + weight * taught[i]
            objective -= (target * np.log(p[i])).sum() / count
            gradient[i] = (p[i] - target) / count
        return objective, gradient, agreement

    def generalized_cross_entropy(self, p, labels, index):
        q, objective, gradient = self.loss.q, 0.0, np.zeros_like(p)
        for i, label in enumerate(labels):
            power = p[i, label] ** q
            objective += (1 - power) / q / len(p)
            gradient[i] = power * (p[i] - np.eye(p.shape[1])[label]) / len(p)
        return objective, gradient, None

    def early_learning_regularization(self, p, labels, index):
        beta, strength, bound = self.loss.beta, self.loss.strength, 1e-4
        objective, gradient, _ = self.cross_entropy(p, labels, index)
        for i, image in enumerate(index):
            clamped = p[i].clip(bound, 1 - bound)
            before = self.previous.get(image, np.zeros(p.shape[1]))
            target = beta * before + (1 - beta) * clamped / clamped.sum()
            self.current[image] = target
            inner = (target * clamped).sum()
            objective += strength * np.log(1 - inner) / len(p)
            slope = target * (clamped == p[i])  # a clamped probability does not move
            towards = p[i] * slope - p[i] * (p[i] * slope).sum()
            gradient[i] -= strength * towards / (1 - inner) / len(p)
        return objective, gradient, None
