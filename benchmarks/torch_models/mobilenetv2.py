"""The PyTorch version of cifar_jax/models/mobilenetv2.py."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from cifar_jax.models.mobilenetv2 import STAGES, scaled


def _conv(in_features: int, features: int, size: int, **options) -> nn.Conv2d:
    return nn.Conv2d(in_features, features, size, padding=size // 2, bias=False, **options)


class Block(nn.Module):
    """See cifar_jax/models/mobilenetv2.py."""

    def __init__(self, in_features: int, features: int, *, expansion: int, stride: int):
        super().__init__()
        hidden = expansion * in_features
        self.expands = expansion != 1
        self.has_shortcut = stride == 1 and in_features == features
        if self.expands:
            self.conv_expand = _conv(in_features, hidden, 1)
            self.bn_expand = nn.BatchNorm2d(hidden)
        self.depthwise = _conv(hidden, hidden, 3, stride=stride, groups=hidden)
        self.bn_depthwise = nn.BatchNorm2d(hidden)
        self.conv_project = _conv(hidden, features, 1)
        self.bn_project = nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, O, H / stride, W / stride]."""
        new = F.relu6(self.bn_expand(self.conv_expand(x))) if self.expands else x
        new = F.relu6(self.bn_depthwise(self.depthwise(new)))
        new = self.bn_project(self.conv_project(new))
        return x + new if self.has_shortcut else new


class MobileNetV2(nn.Module):
    """See cifar_jax/models/mobilenetv2.py."""

    def __init__(
        self,
        num_classes: int,
        *,
        width: float = 1.0,
        depths: Sequence[int] = (1, 2, 3, 4, 3, 3, 1),
        dropout: float = 0.2,
    ):
        super().__init__()
        in_features = scaled(32, width)
        self.conv_stem = _conv(3, in_features, 3)
        self.bn_stem = nn.BatchNorm2d(in_features)
        blocks = []
        for depth, (expansion, count, first_stride) in zip(depths, STAGES, strict=False):
            features = scaled(count, width)
            for i in range(depth):
                stride = first_stride if i == 0 else 1
                blocks.append(Block(in_features, features, expansion=expansion, stride=stride))
                in_features = features
        self.blocks = nn.Sequential(*blocks)
        features = scaled(1280, max(1.0, width))
        self.conv_last = _conv(in_features, features, 1)
        self.bn_last = nn.BatchNorm2d(features)
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(features, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = self.blocks(F.relu6(self.bn_stem(self.conv_stem(images))))
        x = F.relu6(self.bn_last(self.conv_last(x))).mean((2, 3))
        return self.dense(self.dropout(x))
