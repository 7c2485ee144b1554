"""The PyTorch version of cifar_jax/models/cnn4.py."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_models.layers import FlatLinear


class CNN4(nn.Module):
    """See cifar_jax/models/cnn4.py."""

    def __init__(
        self,
        num_classes: int,
        *,
        filters: Sequence[int] = (32, 32, 64, 64),
        dense_units: int = 128,
        dropout: Sequence[float] = (0.25, 0.25, 0.5),
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(3, filters[0], 3, padding=1)
        self.conv2 = nn.Conv2d(filters[0], filters[1], 3, padding=1)
        self.conv3 = nn.Conv2d(filters[1], filters[2], 3, padding=1)
        self.conv4 = nn.Conv2d(filters[2], filters[3], 3, padding=1)
        self.dense1 = FlatLinear(16 * 16, filters[3], dense_units)
        self.dense2 = nn.Linear(dense_units, num_classes)
        self.dropout1, self.dropout2, self.dropout3 = map(nn.Dropout, dropout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = F.relu(self.conv2(F.relu(self.conv1(images))))
        x = self.dropout1(F.max_pool2d(x, 2))
        x = self.dropout2(F.relu(self.conv4(F.relu(self.conv3(x)))).flatten(1))
        return self.dense2(self.dropout3(F.relu(self.dense1(x))))
