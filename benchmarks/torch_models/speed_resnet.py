"""The PyTorch version of cifar_jax/models/speed_resnet.py."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_models.layers import SameConv2d

KERNELS = ((3, 1, 1), (3, 3, 1), (2, 3, 3))


class ResidualGroup(nn.Module):
    """See cifar_jax/models/speed_resnet.py."""

    def __init__(
        self, in_features: int, features: int, mid_features: int, kernel_sizes: Sequence[int]
    ):
        super().__init__()
        size1, size2, size3 = kernel_sizes
        self.conv1 = SameConv2d(in_features, features, size1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = SameConv2d(features, mid_features, size2, bias=False)
        self.bn2 = nn.BatchNorm2d(mid_features)
        self.conv3 = SameConv2d(mid_features, features, size3, bias=False)
        self.bn3 = nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, O, H // 2, W // 2]."""
        x = F.silu(self.bn1(F.max_pool2d(self.conv1(x), 2)))
        residual = F.silu(self.bn2(self.conv2(x)))
        return x + F.silu(self.bn3(self.conv3(residual)))


class SpeedResNet(nn.Module):
    """See cifar_jax/models/speed_resnet.py; parameters have PyTorch's default initialization."""

    def __init__(
        self,
        num_classes: int,
        *,
        widths: Sequence[int] = (64, 256, 768),
        mid_widths: Sequence[int] = (64, 192, 512),
        logit_scale: float = 1.25 / 9,
    ):
        super().__init__()
        self.logit_scale = logit_scale
        self.conv_stem = nn.Conv2d(3, 24, 2)
        self.conv_stem.weight.requires_grad_(False)
        groups = zip((24, *widths[:-1]), widths, mid_widths, KERNELS, strict=True)
        self.blocks = nn.Sequential(*(ResidualGroup(*group) for group in groups))
        self.dense = nn.Linear(widths[-1], num_classes, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, S, S]."""
        x = self.blocks(F.silu(self.conv_stem(images))).flatten(2)
        return self.logit_scale * self.dense(x.max(2).values + x.mean(2))
