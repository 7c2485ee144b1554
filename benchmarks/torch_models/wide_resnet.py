"""The PyTorch version of cifar_jax/models/wide_resnet.py."""

import torch
from torch import nn
from torch.nn import functional as F


class WideBlock(nn.Module):
    """See cifar_jax/models/wide_resnet.py."""

    def __init__(self, in_features: int, features: int, stride: int, dropout: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_features)
        self.conv1 = nn.Conv2d(in_features, features, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.has_projection = stride != 1 or in_features != features
        if self.has_projection:
            self.conv_shortcut = nn.Conv2d(in_features, features, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, O, H / stride, W / stride]."""
        activated = F.relu(self.bn1(x))
        shortcut = self.conv_shortcut(activated) if self.has_projection else x
        x = F.relu(self.bn2(self.conv1(activated)))
        return self.conv2(self.dropout(x)) + shortcut


class WideResNet(nn.Module):
    """See cifar_jax/models/wide_resnet.py."""

    def __init__(self, num_classes: int, *, depth: int, widen_factor: int, dropout: float = 0.0):
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        blocks, in_features = [], 16
        for stage in range(3):
            features = 16 * widen_factor * 2**stage
            for i in range((depth - 4) // 6):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(WideBlock(in_features, features, stride, dropout))
                in_features = features
        self.blocks = nn.Sequential(*blocks)
        self.bn_out = nn.BatchNorm2d(in_features)
        self.dense = nn.Linear(in_features, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = self.blocks(self.conv_stem(images))
        return self.dense(F.relu(self.bn_out(x)).mean((2, 3)))
