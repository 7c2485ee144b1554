"""The PyTorch version of cifar_jax/models/vgg_bn.py."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from cifar_jax.models.vgg_bn import VGG16


class ConvBlock(nn.Module):
    """See cifar_jax/models/vgg_bn.py."""

    def __init__(self, in_features: int, features: int):
        super().__init__()
        self.conv = nn.Conv2d(in_features, features, 3, padding=1)
        self.bn = nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, O, H, W]."""
        return F.relu(self.bn(self.conv(x)))


class VGGBN(nn.Module):
    """See cifar_jax/models/vgg_bn.py."""

    def __init__(
        self,
        num_classes: int,
        *,
        layers: Sequence[int | str] = VGG16,
        dense_units: int = 512,
        dropout: float = 0.5,
    ):
        super().__init__()
        self.layers = layers
        features = (3, *(layer for layer in layers if layer != "M"))
        self.blocks = nn.ModuleList(map(ConvBlock, features, features[1:]))
        self.dense1 = nn.Linear(features[-1], dense_units)
        self.dropout1 = nn.Dropout(dropout)
        self.dense2 = nn.Linear(dense_units, dense_units)
        self.dropout2 = nn.Dropout(dropout)
        self.dense = nn.Linear(dense_units, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x, blocks = images, iter(self.blocks)
        for layer in self.layers:
            x = F.max_pool2d(x, 2) if layer == "M" else next(blocks)(x)
        x = self.dropout1(F.relu(self.dense1(x.mean((2, 3)))))
        return self.dense(self.dropout2(F.relu(self.dense2(x))))
