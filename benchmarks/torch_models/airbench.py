"""The PyTorch version of cifar_jax/models/airbench.py."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_models.layers import BiasNorm2d


class ConvGroup(nn.Module):
    """See cifar_jax/models/airbench.py."""

    def __init__(self, in_features: int, features: int, depth: int, norm):
        super().__init__()
        conv = partial(nn.Conv2d, kernel_size=3, padding=1, bias=False)
        self.depth = depth
        self.conv1 = conv(in_features, features)
        self.bn1 = norm(features)
        self.conv2 = conv(features, features)
        self.bn2 = norm(features)
        if depth == 3:
            self.conv3 = conv(features, features)
            self.bn3 = norm(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, O, H // 2, W // 2]."""
        shortcut = F.gelu(self.bn1(F.max_pool2d(self.conv1(x), 2)))
        x = F.gelu(self.bn2(self.conv2(shortcut)))
        if self.depth == 3:
            x = F.gelu(shortcut + self.bn3(self.conv3(x)))
        return x


class Airbench(nn.Module):
    """See cifar_jax/models/airbench.py; parameters have PyTorch's default initialization."""

    def __init__(
        self,
        num_classes: int,
        *,
        widths: Sequence[int] = (64, 256, 256),
        depth: int = 2,
        bn_momentum: float = 0.6,
        logit_scale: float = 1 / 256,
        init: str = "muon",
    ):
        super().__init__()
        del init
        norm = partial(BiasNorm2d, eps=1e-12, momentum=1 - bn_momentum)
        self.logit_scale = logit_scale
        self.conv_stem = nn.Conv2d(3, 24, 2)
        self.conv_stem.weight.requires_grad_(False)
        pairs = zip((24, *widths[:-1]), widths, strict=True)
        self.blocks = nn.Sequential(*(ConvGroup(*pair, depth, norm) for pair in pairs))
        self.dense = nn.Linear(widths[-1], num_classes, bias=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = self.blocks(F.gelu(self.conv_stem(images)))
        return self.logit_scale * self.dense(F.max_pool2d(x, 3).flatten(1))
