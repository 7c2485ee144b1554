"""The PyTorch version of cifar_jax/models/resnet.py."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_models.layers import KERAS_NORM, SameConv2d


class BasicBlock(nn.Module):
    """See cifar_jax/models/resnet.py."""

    def __init__(self, in_features: int, features: int, stride: int, conv, norm):
        super().__init__()
        self.conv1 = conv(in_features, features, 3, stride)
        self.bn1 = norm(features)
        self.conv2 = conv(features, features, 3, 1)
        self.bn2 = norm(features)
        self.has_projection = stride != 1 or in_features != features
        if self.has_projection:
            self.conv_shortcut = conv(in_features, features, 1, stride)
            self.bn_shortcut = norm(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, O, H / stride, W / stride]."""
        shortcut = self.bn_shortcut(self.conv_shortcut(x)) if self.has_projection else x
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet(nn.Module):
    """See cifar_jax/models/resnet.py."""

    def __init__(
        self,
        num_classes: int,
        *,
        depths: Sequence[int],
        width: int = 64,
        stem: str = "cifar",
        conventions: str = "torch",
    ):
        super().__init__()

        def torch_conv(in_features, features, size, stride):
            return nn.Conv2d(in_features, features, size, stride, padding=size // 2, bias=False)

        conv, norm = torch_conv, nn.BatchNorm2d
        if conventions == "keras":
            conv, norm = SameConv2d, partial(nn.BatchNorm2d, **KERAS_NORM)
        self.stem = stem
        self.conv_stem = conv(3, width, 3, 1) if stem == "cifar" else conv(3, width, 7, 2)
        self.bn_stem = norm(width)
        blocks, in_features = [], width
        for stage, depth in enumerate(depths):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(BasicBlock(in_features, width * 2**stage, stride, conv, norm))
                in_features = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Linear(in_features, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = F.relu(self.bn_stem(self.conv_stem(images)))
        if self.stem == "imagenet":
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        return self.dense(self.blocks(x).mean((2, 3)))
