"""Training as it is usually written: the reference that training_speed.py times.

A DataLoader takes images one by one through torchvision's transforms. Computation is in float32,
channels first. Shake coefficients are drawn on the CPU. The loss is read from the device at every
step.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from dataset.batches import MEAN, STD
from models.shake_resnet import Block


class PlainBlock(Block):
    """The same block with coefficients drawn on the CPU, and the shake without a Function."""

    def forward(self, x, coefficients=None):  # draws its own
        x1, x2 = self.branch1(x), self.branch2(x)
        if not self.training:
            return self.skip(x) + 0.5 * x1 + 0.5 * x2
        alpha = torch.rand(len(x), 1, 1, 1).to(x.device)
        beta = torch.rand(len(x), 1, 1, 1).to(x.device)
        mixed = beta * x1 + (1 - beta) * x2
        return self.skip(x) + mixed + ((alpha - beta) * (x1 - x2)).detach()


def plain_model(model: nn.Module) -> nn.Module:
    """The same network, its blocks replaced by plain ones in place."""
    for module in model.modules():
        if isinstance(module, Block):
            module.__class__ = PlainBlock
    return model


class Images(Dataset):
    """Images uint8 (N, H, W, 3) and labels (N,), one image at a time."""

    def __init__(self, images, labels, transform):
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self):
        return len(self.images)

    def __getitem__(self, k):
        return self.transform(self.images[k]), int(self.labels[k])


def plain_epoch(
    model, optimizer, train_set, test_set, batch_size: int, device
) -> tuple[float, float]:
    """One epoch of training and one of testing; returns mean loss and test accuracy in percent.

    train_set, test_set: images uint8 (N, H, W, 3) and labels (N,).
    """
    to_tensor = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    augment = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
    train = transforms.Compose([transforms.ToPILImage(), *augment, *to_tensor])
    test = transforms.Compose([transforms.ToPILImage(), *to_tensor])
    options = {"batch_size": batch_size, "num_workers": 2}
    options["pin_memory"] = device.type == "cuda"
    model.train()
    total, correct, seen = 0.0, 0, 0
    for images, labels in DataLoader(Images(*train_set, train), shuffle=True, **options):
        images, labels = images.to(device), labels.to(device)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(images)
        seen += len(images)
    model.eval()
    with torch.no_grad():
        for images, labels in DataLoader(Images(*test_set, test), **options):
            correct += (model(images.to(device)).argmax(1) == labels.to(device)).sum().item()
    return total / seen, 100 * correct / len(test_set[0])
