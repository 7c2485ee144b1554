"""The PyTorch version of cifar_jax/models/resnet50.py."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    """See cifar_jax/models/resnet50.py."""

    def __init__(self, in_features: int, features: int, stride: int, is_first: bool):
        super().__init__()
        norm = partial(nn.BatchNorm2d, eps=1.001e-5, momentum=0.01)
        self.is_first = is_first
        if is_first:
            self.conv0 = nn.Conv2d(in_features, 4 * features, 1, stride)
            self.bn0 = norm(4 * features)
        self.conv1 = nn.Conv2d(in_features, features, 1, stride)
        self.bn1 = norm(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.bn2 = norm(features)
        self.conv3 = nn.Conv2d(features, 4 * features, 1)
        self.bn3 = norm(4 * features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, 4 * features, H / stride, W / stride]."""
        shortcut = self.bn0(self.conv0(x)) if self.is_first else x
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet50(nn.Module):
    """See cifar_jax/models/resnet50.py."""

    def __init__(self, num_classes: int, *, depths: Sequence[int] = (3, 4, 6, 3), width: int = 64):
        super().__init__()
        self.conv_stem = nn.Conv2d(3, width, 7, 2, padding=3)
        self.bn_stem = nn.BatchNorm2d(width, eps=1.001e-5, momentum=0.01)
        blocks, in_features = [], width
        for stage, depth in enumerate(depths):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(Bottleneck(in_features, width * 2**stage, stride, i == 0))
                in_features = 4 * width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Linear(in_features, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = F.relu(self.bn_stem(self.conv_stem(images)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        return self.dense(self.blocks(x).mean((2, 3)))
