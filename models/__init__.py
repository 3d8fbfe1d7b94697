"""The networks: the one place where a network is added.

MODELS lists functions of (num_classes, depth, width) that build a network by the name that
`train.py --model` takes; networks of one size ignore depth and width. torch is imported inside the
functions, so that --help does not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from common.errors import UserError

if TYPE_CHECKING:
    from torch import nn


def _shake_resnet(num_classes: int, depth: int, width: int) -> nn.Module:
    from models.shake_resnet import shake_resnet

    return shake_resnet(depth, width, num_classes)


def _small_cnn(num_classes: int, depth: int, width: int) -> nn.Module:
    from models.small_cnn import small_cnn

    return small_cnn(num_classes)


MODELS: dict[str, Callable[[int, int, int], nn.Module]] = {
    "shake_resnet": _shake_resnet,
    "small_cnn": _small_cnn,
}


def check_size(model: str, depth: int, width: int) -> None:
    """Raise UserError unless the network exists at this depth and width."""
    if model != "shake_resnet":
        return
    if depth < 8 or depth % 6 != 2:
        raise UserError(f"--depth {depth} is not 6n + 2; use 8, 14, 20, 26, 32 ...")
    if width < 4 or width % 4:
        raise UserError(f"--width {width} is not a multiple of 4")


def check_images(model: str, height: int, width: int) -> None:
    """Raise UserError unless the network takes images of this size, in pixels."""
    if model == "small_cnn" and min(height, width) < 8:
        raise UserError(f"images of {width}x{height} pixels; --model small_cnn needs 8x8 or more")
    if model == "shake_resnet" and (height % 4 or width % 4):
        raise UserError(
            f"images of {width}x{height} pixels; --model shake_resnet needs multiples of 4; use "
            "--model small_cnn"
        )


def network_name(model: str, depth: int, width: int) -> str:
    """What figures, tables and runs call a network: small_cnn, or shake26-2x32d."""
    return f"shake{depth}-2x{width}d" if model == "shake_resnet" else model
