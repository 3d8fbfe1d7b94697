"""The shake-shake residual network of Gastaldi (arXiv 1705.07485) for small images."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STEM_CHANNELS = 16


class Shake(torch.autograd.Function):
    """alpha x1 + (1 - alpha) x2 forward; beta g and (1 - beta) g backward (section 2.1).

    x1, x2: (N, C, H, W); alpha, beta: (N, 1, 1, 1). The same without a Function takes longer
    (benchmarks/README.md).
    """

    @staticmethod
    def forward(ctx, x1: Tensor, x2: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
        ctx.save_for_backward(beta)
        return torch.lerp(x2, x1, alpha)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (beta,) = ctx.saved_tensors
        gradient1 = gradient * beta
        return gradient1, gradient - gradient1, None, None


class Skip(nn.Module):
    """The skip connection where the size changes: two paths, one of them shifted by a pixel.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        # An average pool of size 1 selects every stride-th pixel: the stride of these does it.
        self.conv1 = nn.Conv2d(in_channels, out_channels // 2, 1, stride=stride, bias=False)
        self.conv2 = nn.Conv2d(in_channels, out_channels // 2, 1, stride=stride, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        shifted = F.pad(x, (-1, 1, -1, 1))
        return self.norm(torch.cat((self.conv1(x), self.conv2(shifted)), dim=1))


def branch(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """ReLU - conv 3x3 - BatchNorm - ReLU - conv 3x3 - BatchNorm."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def draw_coefficients(blocks: int, x: Tensor) -> Tensor:
    """alpha and beta of each block for the images x (N, ...): (blocks, 2, N, 1, 1, 1)."""
    # One kernel for all blocks. In float32: bfloat16 would have 256 values, of a mean below 1/2.
    return torch.rand(blocks, 2, len(x), 1, 1, 1, device=x.device).to(x.dtype)


class Block(nn.Module):
    """x + alpha branch1(x) + (1 - alpha) branch2(x); without coefficients x + the branches' mean.

    (N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int):
        super().__init__()
        self.branch1 = branch(in_channels, out_channels, stride)
        self.branch2 = branch(in_channels, out_channels, stride)
        changes_size = stride != 1 or in_channels != out_channels
        self.skip = Skip(in_channels, out_channels, stride) if changes_size else nn.Identity()

    def forward(self, x: Tensor, coefficients: Tensor | None = None) -> Tensor:
        x1, x2 = self.branch1(x), self.branch2(x)
        if coefficients is None:
            return self.skip(x) + 0.5 * (x1 + x2)
        alpha, beta = coefficients  # (N, 1, 1, 1) each
        return self.skip(x) + Shake.apply(x1, x2, alpha, beta)


class ShakeResNet(nn.Module):
    """Stem, three stages of `blocks` blocks, ReLU, average pool, linear."""

    def __init__(self, blocks: int, width: int, num_classes: int):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, STEM_CHANNELS, 3, padding=1, bias=False), nn.BatchNorm2d(STEM_CHANNELS)
        )
        layers, channels = [], STEM_CHANNELS
        for stage in range(3):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                layers.append(Block(channels, width * 2**stage, stride))
                channels = width * 2**stage
        self.blocks = nn.Sequential(*layers)
        self.linear = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: Tensor) -> Tensor:
        """float32 (N, 3, H, W), H and W divisible by 4, -> logits (N, num_classes)."""
        x = self.stem(images)
        count = len(self.blocks)
        coefficients = draw_coefficients(count, x) if self.training else [None] * count
        for block, of_block in zip(self.blocks, coefficients, strict=True):
            x = block(x, of_block)  # at last (N, 4 width, H / 4, W / 4)
        # In bfloat16, the two best classes of some images would tie.
        with torch.autocast(x.device.type, enabled=False):
            x = F.relu(x).to(self.linear.weight.dtype)
            return self.linear(x.mean(dim=(2, 3)))


def shake_resnet(depth: int = 26, width: int = 32, num_classes: int = 10) -> ShakeResNet:
    """The network "`depth` 2x`width`d", with depth 6n + 2 for n blocks a stage: check_size."""
    return ShakeResNet((depth - 2) // 6, width, num_classes)
