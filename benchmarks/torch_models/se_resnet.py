"""The PyTorch version of cifar_jax/models/se_resnet.py."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


class Gate(nn.Module):
    """See cifar_jax/models/se_resnet.py."""

    def __init__(self, features: int, reduction: int):
        super().__init__()
        self.squeeze = nn.Linear(features, features // reduction)
        self.excite = nn.Linear(features // reduction, features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, C, H, W] to the same shape."""
        squeezed = F.relu(self.squeeze(x.mean((2, 3))))
        return x * torch.sigmoid(self.excite(squeezed))[:, :, None, None]


class SEBlock(nn.Module):
    """See cifar_jax/models/se_resnet.py."""

    def __init__(self, in_features: int, features: int, stride: int, reduction: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_features, features, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.gate = Gate(features, reduction)
        self.has_projection = stride != 1 or in_features != features
        if self.has_projection:
            self.conv_shortcut = nn.Conv2d(in_features, features, 1, stride, bias=False)
            self.bn_shortcut = nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, O, H / stride, W / stride]."""
        shortcut = self.bn_shortcut(self.conv_shortcut(x)) if self.has_projection else x
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.gate(self.bn2(self.conv2(x))) + shortcut)


class SEResNet(nn.Module):
    """See cifar_jax/models/se_resnet.py."""

    def __init__(
        self, num_classes: int, *, depths: Sequence[int], width: int = 64, reduction: int = 16
    ):
        super().__init__()
        self.conv_stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn_stem = nn.BatchNorm2d(width)
        blocks, in_features = [], width
        for stage, depth in enumerate(depths):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(SEBlock(in_features, width * 2**stage, stride, reduction))
                in_features = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Linear(in_features, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = F.relu(self.bn_stem(self.conv_stem(images)))
        return self.dense(self.blocks(x).mean((2, 3)))
