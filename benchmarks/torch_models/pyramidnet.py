"""The PyTorch version of cifar_jax/models/pyramidnet.py."""

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_models.shake_drop import ShakeDrop


class PyramidBlock(nn.Module):
    """See cifar_jax/models/pyramidnet.py."""

    def __init__(self, in_features: int, features: int, stride: int, bottleneck: bool, rate: float):
        super().__init__()
        if bottleneck:
            layers = [(features, 1, 1), (features, 3, stride), (4 * features, 1, 1)]
        else:
            layers = [(features, 3, stride), (features, 3, 1)]
        self.stride, self.features = stride, layers[-1][0]
        self.bn_in = nn.BatchNorm2d(in_features)
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for count, size, step in layers:
            self.convs.append(
                nn.Conv2d(in_features, count, size, step, padding=size // 2, bias=False)
            )
            self.norms.append(nn.BatchNorm2d(count))
            in_features = count
        self.shake_drop = ShakeDrop(rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, O, H / stride, W / stride]."""
        branch = self.bn_in(x)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            branch = norm(conv(F.relu(branch) if i > 0 else branch))
        shortcut = F.avg_pool2d(x, 2, ceil_mode=True) if self.stride == 2 else x
        new = self.features - x.shape[1]
        return self.shake_drop(branch) + F.pad(shortcut, (0, 0, 0, 0, 0, new))


class PyramidNet(nn.Module):
    """See cifar_jax/models/pyramidnet.py."""

    def __init__(
        self,
        num_classes: int,
        *,
        depth: int = 110,
        alpha: int = 270,
        bottleneck: bool = False,
        shake_drop: float = 0.5,
    ):
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn_stem = nn.BatchNorm2d(16)
        per_stage = (depth - 2) // (9 if bottleneck else 6)
        blocks, in_features, count = [], 16, 3 * per_stage
        for i in range(count):
            features = round(16 + alpha * (i + 1) / count)
            stride = 2 if i in (per_stage, 2 * per_stage) else 1
            rate = shake_drop * (i + 1) / count
            blocks.append(PyramidBlock(in_features, features, stride, bottleneck, rate))
            in_features = blocks[-1].features
        self.blocks = nn.Sequential(*blocks)
        self.bn_out = nn.BatchNorm2d(in_features)
        self.dense = nn.Linear(in_features, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = self.blocks(self.bn_stem(self.conv_stem(images)))
        return self.dense(F.relu(self.bn_out(x)).mean((2, 3)))
