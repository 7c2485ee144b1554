"""The PyTorch version of cifar_jax/models/plain.py."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_models.layers import KERAS_NORM, FlatLinear
from cifar_jax.models.layers import per_layer


class Plain(nn.Module):
    """See cifar_jax/models/plain.py."""

    def __init__(
        self,
        num_classes: int,
        *,
        layers: Sequence[int | str],
        padding: str = "SAME",
        dropout: float | Sequence[float] = 0.0,
    ):
        super().__init__()
        rates = iter(per_layer(dropout, layers.count("D"), "dropout"))
        size, features, pixels = 32, 3, 0  # pixels: 0 before flatten
        made = []
        for layer in layers:
            if layer == "F":
                made.append(nn.Flatten())
                pixels = size * size
            elif layer == "A":
                made.append(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
                pixels = 1
            elif layer == "M":
                made.append(nn.MaxPool2d(2))
                size //= 2
            elif layer == "B":
                made.append((nn.BatchNorm1d if pixels else nn.BatchNorm2d)(features, **KERAS_NORM))
            elif layer == "D":
                made.append(nn.Dropout(next(rates)))
            elif pixels:
                made.append(FlatLinear(pixels, features, layer))
                pixels, features = 1, layer
            else:
                made.append(nn.Conv2d(features, layer, 3, padding=padding.lower()))
                size, features = size - 2 * (padding == "VALID"), layer
        self.layers = nn.ModuleList(made)
        self.dense = FlatLinear(pixels, features, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = images
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                x = F.relu(x)
        return self.dense(x)
