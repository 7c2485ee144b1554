"""The PyTorch version of cifar_jax/models/inception_resnet.py."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_models.layers import KERAS_NORM


class InceptionLayer(nn.Module):
    """See cifar_jax/models/inception_resnet.py."""

    def __init__(self, in_features: int, features: int):
        super().__init__()
        self.conv = nn.Conv2d(in_features, features // 3, 3, padding=1)
        self.conv_dilated = nn.Conv2d(in_features, features // 3, 3, padding=2, dilation=2)
        self.conv_pooled = nn.Conv2d(in_features, features // 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, O, H, W]."""
        pooled = F.max_pool2d(x, 3, stride=1, padding=1)
        return torch.cat([self.conv(x), self.conv_dilated(x), self.conv_pooled(pooled)], 1)


class InceptionBlock(nn.Module):
    """See cifar_jax/models/inception_resnet.py."""

    def __init__(self, in_features: int, features: int):
        super().__init__()
        self.layer1 = InceptionLayer(in_features, features)
        self.bn1 = nn.BatchNorm2d(features, **KERAS_NORM)
        self.layer2 = InceptionLayer(features, features)
        self.bn2 = nn.BatchNorm2d(features, **KERAS_NORM)
        self.has_projection = in_features != features
        if self.has_projection:
            self.conv_shortcut = nn.Conv2d(in_features, features, 1)
            self.bn_shortcut = nn.BatchNorm2d(features, **KERAS_NORM)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, O, H, W]."""
        shortcut = self.bn_shortcut(self.conv_shortcut(x)) if self.has_projection else x
        x = F.relu(self.bn1(self.layer1(x)))
        return F.relu(self.bn2(self.layer2(x)) + shortcut)


class InceptionResNet(nn.Module):
    """See cifar_jax/models/inception_resnet.py."""

    def __init__(
        self,
        num_classes: int,
        *,
        features: Sequence[int] = (96, 192, 384),
        depth: int = 2,
        stem_features: int = 64,
    ):
        super().__init__()
        self.conv_stem = nn.Conv2d(3, stem_features, 3, padding=1)
        self.bn_stem = nn.BatchNorm2d(stem_features, **KERAS_NORM)
        stages, in_features = [], stem_features
        for count in features:
            widths = pairwise((in_features, *[count] * depth))
            stages.append(nn.Sequential(*(InceptionBlock(*pair) for pair in widths)))
            in_features = count
        self.stages = nn.ModuleList(stages)
        self.dense = nn.Linear(in_features, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = self.stages[0](F.relu(self.bn_stem(self.conv_stem(images))))
        for stage in self.stages[1:]:
            x = stage(F.max_pool2d(x, 2))
        return self.dense(x.mean((2, 3)))
