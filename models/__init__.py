"""The networks: the one place where a network is added.

MODELS has, by the name that `train.py --model` takes, functions of (num_classes, image_size, depth,
width) that build a network. image_size is (height, width) in pixels. A network takes normalized
images float32 (N, 3, H, W) and returns logits (N, C). Only the functions import torch, for --help.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from common.command_line import UserError

if TYPE_CHECKING:
    from torch import nn

ImageSize = tuple[int, int]


def _shake_resnet(num_classes: int, image_size: ImageSize, depth: int, width: int) -> nn.Module:
    from models.shake_resnet import shake_resnet

    if image_size[0] % 4 or image_size[1] % 4 or min(image_size) < 8:
        raise UserError(
            f"images of {image_size[1]}x{image_size[0]} pixels; --model shake_resnet needs "
            "multiples of 4 from 8 on; use --model small_cnn, or generate.py --image-size 32"
        )
    return shake_resnet(depth, width, num_classes)


def _small_cnn(num_classes: int, image_size: ImageSize, depth: int, width: int) -> nn.Module:
    from models.small_cnn import small_cnn

    if min(image_size) < 8:
        raise UserError(
            f"images of {image_size[1]}x{image_size[0]} pixels; --model small_cnn needs 8x8 or more"
        )
    return small_cnn(num_classes)


MODELS: dict[str, Callable[[int, ImageSize, int, int], nn.Module]] = {
    "shake_resnet": _shake_resnet,
    "small_cnn": _small_cnn,
}


def check_size(depth: int, width: int) -> None:
    """Raise UserError unless the shake_resnet exists at this depth and width."""
    if not 8 <= depth <= 1202 or depth % 6 != 2:
        raise UserError(f"--depth {depth} is not 6n + 2; use 8, 14, 20, 26, 32 ... up to 1202")
    if not 4 <= width <= 1024 or width % 4:
        raise UserError(f"--width {width} is not a multiple of 4 from 4 to 1024")


def network_title(model: str, depth: int, width: int) -> str:
    """What figures, tables and runs call a network: small_cnn, or shake26-2x32d."""
    return f"shake{depth}-2x{width}d" if model == "shake_resnet" else model
