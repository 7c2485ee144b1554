"""The PyTorch version of cifar_jax/models/cnn_deep.py."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_models.layers import FlatLinear


class CNNDeep(nn.Module):
    """See cifar_jax/models/cnn_deep.py."""

    def __init__(self, num_classes: int, *, dropout: Sequence[float] = (0.3, 0.1)):
        super().__init__()
        filters = (3, 20, 24, 32, 40, 48, 56, 64, 72)
        for i, (in_features, features) in enumerate(pairwise(filters), 1):
            self.add_module(f"conv{i}", nn.Conv2d(in_features, features, 3))
        self.bn_conv1 = nn.BatchNorm2d(20, affine=False)
        self.bn_conv5 = nn.BatchNorm2d(48, affine=False)
        self.dense1 = FlatLinear(4 * 4, 72, 256)
        self.bn_dense1 = nn.BatchNorm1d(256, affine=False)
        self.dense2 = nn.Linear(256, 64)
        self.dense3 = nn.Linear(64, 32)
        self.dense4 = nn.Linear(32, 16)
        self.dense5 = nn.Linear(16, num_classes)
        self.dropout1, self.dropout2 = map(nn.Dropout, dropout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = F.relu(self.bn_conv1(self.conv1(images)))
        x = F.relu(self.conv4(F.relu(self.conv3(F.relu(self.conv2(x))))))
        x = F.relu(self.bn_conv5(self.conv5(F.max_pool2d(x, 2))))
        x = F.relu(self.conv8(F.relu(self.conv7(F.relu(self.conv6(x)))))).flatten(1)
        x = self.dropout1(F.relu(self.bn_dense1(self.dense1(x))))
        x = self.dropout2(F.relu(self.dense3(F.relu(self.dense2(x)))))
        return self.dense5(F.relu(self.dense4(x)))
