"""The PyTorch version of cifar_jax/models/convnext.py."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_models.layers import StochasticDepth
from cifar_jax.models.stochastic_depth import linear_rates


class ChannelNorm(nn.LayerNorm):
    """Normalizes the channels of each pixel, with eps 1e-6."""

    def __init__(self, features: int):
        super().__init__(features, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, C, H, W] to the same shape."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LayerScale(nn.Module):
    """See cifar_jax/models/convnext.py."""

    def __init__(self, num_features: int):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((num_features,), 1e-6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [..., C] to the same shape."""
        return x * self.gamma


class Block(nn.Module):
    """See cifar_jax/models/convnext.py."""

    def __init__(self, features: int, drop_rate: float):
        super().__init__()
        self.depthwise = nn.Conv2d(features, features, 7, padding=3, groups=features)
        self.norm = nn.LayerNorm(features, eps=1e-6)
        self.dense1 = nn.Linear(features, 4 * features)
        self.dense2 = nn.Linear(4 * features, features)
        self.layer_scale = LayerScale(features)
        self.drop_path = StochasticDepth(drop_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, C, H, W] to the same shape."""
        new = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        new = self.layer_scale(self.dense2(F.gelu(self.dense1(new)))).permute(0, 3, 1, 2)
        return x + self.drop_path(new)


class Downsample(nn.Module):
    """See cifar_jax/models/convnext.py."""

    def __init__(self, in_features: int, features: int):
        super().__init__()
        self.norm = ChannelNorm(in_features)
        self.conv = nn.Conv2d(in_features, features, 2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, O, H / 2, W / 2]."""
        return self.conv(self.norm(x))


class ConvNeXt(nn.Module):
    """See cifar_jax/models/convnext.py."""

    def __init__(
        self,
        num_classes: int,
        *,
        depths: Sequence[int] = (3, 3, 9, 3),
        width: int = 96,
        drop_path: float = 0.1,
    ):
        super().__init__()
        self.depths = depths
        self.conv_stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm_stem = ChannelNorm(width)
        rates = iter(linear_rates(drop_path, sum(depths)))
        self.blocks, self.downsamples = nn.ModuleList(), nn.ModuleList()
        for stage, depth in enumerate(depths):
            features = width * 2**stage
            if stage > 0:
                self.downsamples.append(Downsample(features // 2, features))
            self.blocks.extend(Block(features, next(rates)) for _ in range(depth))
        self.norm = nn.LayerNorm(features, eps=1e-6)
        self.dense = nn.Linear(features, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = self.norm_stem(self.conv_stem(images))
        blocks = iter(self.blocks)
        for stage, depth in enumerate(self.depths):
            if stage > 0:
                x = self.downsamples[stage - 1](x)
            for _ in range(depth):
                x = next(blocks)(x)
        return self.dense(self.norm(x.mean((2, 3))))
