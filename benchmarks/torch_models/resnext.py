"""The PyTorch version of cifar_jax/models/resnext.py."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F


class GroupedBottleneck(nn.Module):
    """See cifar_jax/models/resnext.py."""

    def __init__(
        self, in_features: int, inner_features: int, features: int, stride: int, cardinality: int
    ):
        super().__init__()
        conv = partial(nn.Conv2d, bias=False)
        self.conv1 = conv(in_features, inner_features, 1)
        self.bn1 = nn.BatchNorm2d(inner_features)
        self.conv2 = conv(inner_features, inner_features, 3, stride, padding=1, groups=cardinality)
        self.bn2 = nn.BatchNorm2d(inner_features)
        self.conv3 = conv(inner_features, features, 1)
        self.bn3 = nn.BatchNorm2d(features)
        self.has_projection = stride != 1 or in_features != features
        if self.has_projection:
            self.conv_shortcut = conv(in_features, features, 1, stride)
            self.bn_shortcut = nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, O, H / stride, W / stride]."""
        shortcut = self.bn_shortcut(self.conv_shortcut(x)) if self.has_projection else x
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNeXt(nn.Module):
    """See cifar_jax/models/resnext.py."""

    def __init__(
        self, num_classes: int, *, depths: Sequence[int], cardinality: int = 8, width: int = 64
    ):
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn_stem = nn.BatchNorm2d(64)
        blocks, in_features = [], 64
        for stage, depth in enumerate(depths):
            inner, features = cardinality * width * 2**stage, 256 * 2**stage
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(GroupedBottleneck(in_features, inner, features, stride, cardinality))
                in_features = features
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Linear(in_features, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = F.relu(self.bn_stem(self.conv_stem(images)))
        return self.dense(self.blocks(x).mean((2, 3)))
