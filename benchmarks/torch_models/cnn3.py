"""The PyTorch version of cifar_jax/models/cnn3.py."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_models.layers import FlatLinear


class CNN3(nn.Module):
    """See cifar_jax/models/cnn3.py."""

    def __init__(self, num_classes: int, *, dropout: Sequence[float] = (0.1, 0.25, 0.5)):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.dense1 = FlatLinear(4 * 4, 128, 512)
        self.dense2 = nn.Linear(512, num_classes)
        self.dropout1, self.dropout2, self.dropout3 = map(nn.Dropout, dropout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = self.dropout1(F.max_pool2d(F.relu(self.conv2(x)), 2))
        x = self.dropout2(F.max_pool2d(F.relu(self.conv3(x)), 2)).flatten(1)
        return self.dense2(self.dropout3(F.relu(self.dense1(x))))
