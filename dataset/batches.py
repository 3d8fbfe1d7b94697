"""Normalized images and the batches of an epoch, on the device that holds the images."""

from collections.abc import Iterator
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# The original's constants, not the true pixel deviations of CIFAR-10 (about 0.247), so that the
# smoothing variance delta keeps its meaning.
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2023, 0.1994, 0.2010)
PADDING = 4  # pixels on each side before the random crop


def normalize(images: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) -> float32 (N, 3, H, W), channels last in memory, in normalized pixels."""
    mean, std = _pixel_statistics(images.device)
    return images.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)


@lru_cache
def _pixel_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """MEAN and STD as (3, 1, 1), sent to the device once: each transfer would wait for it."""
    mean, std = (torch.tensor(c, device=device).view(3, 1, 1) for c in (MEAN, STD))
    return mean, std


def training_batches(
    images: Tensor,
    batch_size: int,
    augment: bool,
    generator: torch.Generator,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch in random order, every image once, on the device that holds the images.

    images: uint8 (N, H, W, 3); generator: on the CPU, the only source of randomness. Yields the
    normalized batch (B, 3, H, W) float32 and the images' indices (B,) int64; the last batch may be
    smaller. A rank of several gets every world_size-th image of each batch, from its own number on,
    or the batch's first image where there is none. With `augment`, each image is padded with 4
    black pixels, cropped at a place of its own and mirrored with probability 1/2.
    """
    count, height, width, _ = images.shape
    device = images.device
    # Drawn on the CPU, so that a seed has one order on every device, and for a whole epoch before
    # its first batch, so that no step waits for a transfer.
    order = torch.randperm(count, generator=generator).to(device)
    offset = torch.randint(2 * PADDING + 1, (2, count), generator=generator).to(device)
    mirrored = (torch.rand(count, generator=generator) < 0.5).to(device)
    batches = (
        batch[rank::world_size] if rank < len(batch) else batch[:1]
        for batch in order.split(batch_size)
    )
    if not augment:
        for index in batches:
            yield normalize(images[index]), index
        return
    padded = F.pad(images, (0, 0, PADDING, PADDING, PADDING, PADDING))
    row, column = torch.arange(height, device=device), torch.arange(width, device=device)
    for index in batches:
        # Selection, crop and mirror image are one gather.
        rows = offset[0, index, None] + row  # (B, H)
        columns = torch.where(mirrored[index, None], width - 1 - column, column)
        columns = columns + offset[1, index, None]  # (B, W)
        crops = padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]
        yield normalize(crops), index  # crops: (B, H, W, 3)
