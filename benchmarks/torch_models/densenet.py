"""The PyTorch version of cifar_jax/models/densenet.py."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


def _conv(in_features: int, features: int, size: int) -> nn.Conv2d:
    return nn.Conv2d(in_features, features, size, padding=size // 2, bias=False)


class DenseLayer(nn.Module):
    """See cifar_jax/models/densenet.py."""

    def __init__(self, in_features: int, growth: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_features)
        self.conv1 = _conv(in_features, 4 * growth, 1)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = _conv(4 * growth, growth, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, I + growth, H, W]."""
        new = self.conv1(F.relu(self.bn1(x)))
        return torch.cat([x, self.conv2(F.relu(self.bn2(new)))], 1)


class Transition(nn.Module):
    """See cifar_jax/models/densenet.py."""

    def __init__(self, in_features: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(in_features)
        self.conv = _conv(in_features, in_features // 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, I / 2, H / 2, W / 2]."""
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class DenseNet(nn.Module):
    """See cifar_jax/models/densenet.py."""

    def __init__(
        self, num_classes: int, *, depths: Sequence[int] = (6, 12, 24, 16), growth: int = 32
    ):
        super().__init__()
        self.depths = depths
        features = 2 * growth
        self.conv_stem = _conv(3, features, 3)
        self.layers, self.transitions = nn.ModuleList(), nn.ModuleList()
        for i, depth in enumerate(depths):
            if i > 0:
                self.transitions.append(Transition(features))
                features //= 2
            for _ in range(depth):
                self.layers.append(DenseLayer(features, growth))
                features += growth
        self.bn = nn.BatchNorm2d(features)
        self.dense = nn.Linear(features, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = self.conv_stem(images)
        layers = iter(self.layers)
        for i, depth in enumerate(self.depths):
            if i > 0:
                x = self.transitions[i - 1](x)
            for _ in range(depth):
                x = next(layers)(x)
        return self.dense(F.relu(self.bn(x)).mean((2, 3)))
