"""The PyTorch version of cifar_jax/models/resnet50.py."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F


class Bottleneck(nn.Module):
    """See cifar_jax/models/resnet50.py."""

    def __init__(
        self,
        in_features: int,
        features: int,
        strides: tuple[int, int],
        has_projection: bool,
        conv,
        norm,
    ):
        super().__init__()
        self.has_projection = has_projection
        if has_projection:
            self.conv0 = conv(in_features, 4 * features, 1, strides[0] * strides[1])
            self.bn0 = norm(4 * features)
        self.conv1 = conv(in_features, features, 1, strides[0])
        self.bn1 = norm(features)
        self.conv2 = conv(features, features, 3, strides[1], padding=1)
        self.bn2 = norm(features)
        self.conv3 = conv(features, 4 * features, 1)
        self.bn3 = norm(4 * features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, 4 * features, H / stride, W / stride]."""
        shortcut = self.bn0(self.conv0(x)) if self.has_projection else x
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet50(nn.Module):
    """See cifar_jax/models/resnet50.py."""

    def __init__(
        self,
        num_classes: int,
        *,
        depths: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        stem: str = "imagenet",
        conventions: str = "keras",
    ):
        super().__init__()
        is_keras = conventions == "keras"
        conv = partial(nn.Conv2d, bias=is_keras)
        options = dict(eps=1.001e-5, momentum=0.01) if is_keras else dict(eps=1e-5, momentum=0.1)
        norm = partial(nn.BatchNorm2d, **options)
        size, stride = (3, 1) if stem == "cifar" else (7, 2)
        self.stem = stem
        self.conv_stem = conv(3, width, size, stride, padding=size // 2)
        self.bn_stem = norm(width)
        blocks, in_features = [], width
        for stage, depth in enumerate(depths):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                strides = (stride, 1) if is_keras else (1, stride)
                features = width * 2**stage
                blocks.append(Bottleneck(in_features, features, strides, i == 0, conv, norm))
                in_features = 4 * width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Linear(in_features, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = F.relu(self.bn_stem(self.conv_stem(images)))
        if self.stem == "imagenet":
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        return self.dense(self.blocks(x).mean((2, 3)))
