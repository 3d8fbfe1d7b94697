"""A small convolutional network, so that the study can be run without a GPU."""

from collections import OrderedDict

from torch import nn

STAGE_CHANNELS = (32, 64, 128)
HIDDEN = 256
POOLED = 4  # rows and columns before the linear layers: what three poolings leave of 32


def small_cnn(num_classes: int = 10) -> nn.Sequential:
    """Three stages conv 3x3 - BatchNorm - ReLU - max pool 2 of 32, 64, 128 channels, two linears.

    Takes float32 (N, 3, H, W) with H, W of at least 8 and returns logits (N, num_classes). Sizes
    other than 32x32 are averaged to the 4x4 that 32x32 has before the linear layers.
    """
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
    return nn.Sequential(OrderedDict(layers))
