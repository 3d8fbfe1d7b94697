"""A small convolutional network, so that the study can be run without a GPU."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

STAGE_CHANNELS = (32, 64, 128)
HIDDEN = 256
POOLED = 4  # rows and columns before the linear layers, of images of any size: of 32x32, all


class SmallCNN(nn.Sequential):
    """Layers in their order; autocast leaves the last five, the head, as they are."""

    def forward(self, images: Tensor) -> Tensor:
        """float32 (N, 3, H, W), H and W of at least 8, -> logits (N, num_classes)."""
        *features, pool, flatten, hidden, relu, linear = self.children()
        x = images
        for layer in features:
            x = layer(x)
        # In bfloat16, the two best classes of some images would tie.
        with torch.autocast(x.device.type, enabled=False):
            x = flatten(pool(x.to(linear.weight.dtype)))
            return linear(relu(hidden(x)))


def small_cnn(num_classes: int = 10) -> SmallCNN:
    """Three stages conv 3x3 - BatchNorm - ReLU - max pool 2, then two linear layers."""
    layers: list[tuple[str, nn.Module]] = []
    channels = 3
    for stage, width in enumerate(STAGE_CHANNELS, start=1):
        layers += [
            (f"conv{stage}", nn.Conv2d(channels, width, 3, padding=1, bias=False)),
            (f"norm{stage}", nn.BatchNorm2d(width)),
            (f"relu{stage}", nn.ReLU(inplace=True)),
            (f"pool{stage}", nn.MaxPool2d(2)),
        ]
        channels = width
    layers += [
        ("pool", nn.AdaptiveAvgPool2d(POOLED)),
        ("flatten", nn.Flatten()),
        ("hidden", nn.Linear(channels * POOLED**2, HIDDEN)),
        ("relu", nn.ReLU(inplace=True)),
        ("linear", nn.Linear(HIDDEN, num_classes)),
    ]
    return SmallCNN(OrderedDict(layers))
