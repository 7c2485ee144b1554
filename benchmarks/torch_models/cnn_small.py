"""The PyTorch version of cifar_jax/models/cnn_small.py."""

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_models.layers import FlatLinear


class CNNSmall(nn.Module):
    """See cifar_jax/models/cnn_small.py."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5)
        self.conv2 = nn.Conv2d(8, 16, 3)
        self.dense1 = FlatLinear(6 * 6, 16, 128)
        self.dense2 = nn.Linear(128, 32)
        self.dense3 = nn.Linear(32, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = F.avg_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.dense3(F.relu(self.dense2(F.relu(self.dense1(x)))))
