"""The suite's networks in PyTorch: what equality tests and `versus_torch` compare with.

Modules and options are named as in `cifar_jax.models`, so that one walk over the names copies our
parameters into any of them.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from flax.traverse_util import flatten_dict
from torch import nn
from torch.nn import functional as F


class FlatLinear(nn.Linear):
    """A dense layer behind `flatten`, whose inputs PyTorch orders by channel and we by pixel.

    Args:
      pixels: height times width of what was flattened.
      channels: of what was flattened.
      units: of the output.
    """

    def __init__(self, pixels: int, channels: int, units: int):
        super().__init__(pixels * channels, units)
        self.pixels = pixels


class CNN2(nn.Module):
    """See cifar_jax/models/cnn2.py."""

    def __init__(
        self,
        num_classes: int,
        *,
        filters: Sequence[int] = (32, 64),
        dense_units: int = 128,
        dropout: Sequence[float] = (0.0, 0.0, 0.0),
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(3, filters[0], 3, padding=1)
        self.conv2 = nn.Conv2d(filters[0], filters[1], 3, padding=1)
        self.dense1 = FlatLinear(16 * 16, filters[1], dense_units)
        self.dense2 = nn.Linear(dense_units, num_classes)
        self.dropout1, self.dropout2, self.dropout3 = map(nn.Dropout, dropout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = self.dropout1(F.max_pool2d(F.relu(self.conv1(images)), 2))
        x = self.dropout2(F.relu(self.conv2(x)).flatten(1))
        return self.dense2(self.dropout3(F.relu(self.dense1(x))))


class CNN3(nn.Module):
    """See cifar_jax/models/cnn3.py."""

    def __init__(self, num_classes: int, *, dropout: Sequence[float] = (0.1, 0.25, 0.5)):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.dense1 = FlatLinear(4 * 4, 128, 512)
        self.dense2 = nn.Linear(512, num_classes)
        self.dropout1, self.dropout2, self.dropout3 = map(nn.Dropout, dropout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = self.dropout1(F.max_pool2d(F.relu(self.conv2(x)), 2))
        x = self.dropout2(F.max_pool2d(F.relu(self.conv3(x)), 2)).flatten(1)
        return self.dense2(self.dropout3(F.relu(self.dense1(x))))


class CNN4(nn.Module):
    """See cifar_jax/models/cnn4.py."""

    def __init__(
        self,
        num_classes: int,
        *,
        filters: Sequence[int] = (32, 32, 64, 64),
        dense_units: int = 128,
        dropout: Sequence[float] = (0.25, 0.25, 0.5),
    ):
        super().__init__()
        self.conv1 = nn.Conv2d(3, filters[0], 3, padding=1)
        self.conv2 = nn.Conv2d(filters[0], filters[1], 3, padding=1)
        self.conv3 = nn.Conv2d(filters[1], filters[2], 3, padding=1)
        self.conv4 = nn.Conv2d(filters[2], filters[3], 3, padding=1)
        self.dense1 = FlatLinear(16 * 16, filters[3], dense_units)
        self.dense2 = nn.Linear(dense_units, num_classes)
        self.dropout1, self.dropout2, self.dropout3 = map(nn.Dropout, dropout)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = F.relu(self.conv2(F.relu(self.conv1(images))))
        x = self.dropout1(F.max_pool2d(x, 2))
        x = self.dropout2(F.relu(self.conv4(F.relu(self.conv3(x)))).flatten(1))
        return self.dense2(self.dropout3(F.relu(self.dense1(x))))


class BasicBlock(nn.Module):
    """See cifar_jax/models/resnet.py."""

    def __init__(self, in_features: int, features: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_features, features, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(features)
        self.has_projection = stride != 1 or in_features != features
        if self.has_projection:
            self.conv_shortcut = nn.Conv2d(in_features, features, 1, stride, bias=False)
            self.bn_shortcut = nn.BatchNorm2d(features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, O, H / stride, W / stride]."""
        shortcut = self.bn_shortcut(self.conv_shortcut(x)) if self.has_projection else x
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet(nn.Module):
    """See cifar_jax/models/resnet.py."""

    def __init__(self, num_classes: int, *, depths: Sequence[int], width: int = 64):
        super().__init__()
        self.conv_stem = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn_stem = nn.BatchNorm2d(width)
        blocks, in_features = [], width
        for stage, depth in enumerate(depths):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(BasicBlock(in_features, width * 2**stage, stride))
                in_features = width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Linear(in_features, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = self.blocks(F.relu(self.bn_stem(self.conv_stem(images))))
        return self.dense(x.mean((2, 3)))


MODELS: dict[str, Callable[..., nn.Module]] = {
    "cnn2": CNN2,
    "cnn3": CNN3,
    "cnn4": CNN4,
    "resnet18": lambda num_classes, **options: ResNet(num_classes, depths=(2, 2, 2, 2), **options),
    "resnet34": lambda num_classes, **options: ResNet(num_classes, depths=(3, 4, 6, 3), **options),
}

_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def to_state_dict(arrays: Mapping[str, Any], module: nn.Module) -> dict[str, torch.Tensor]:
    """Converts one of our trees (params, batch_stats, gradients) to PyTorch's names and layouts.

    Args:
      arrays: nested dict; convolutions are [h, w, I, O], dense kernels [I, O].
      module: the network's twin; only looked at.

    Returns:
      {name in module.state_dict(): tensor}; convolutions are [O, I, h, w], dense weights [O, I].
    """
    state = {}
    for path, array in flatten_dict(arrays).items():
        *owner, leaf = map(str, path)
        array = np.asarray(array)
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif array.ndim == 2:
            pixels = getattr(module.get_submodule(".".join(owner)), "pixels", 1)
            units = array.shape[1]
            array = array.reshape(pixels, -1, units).transpose(2, 1, 0).reshape(units, -1)
        state[".".join([*owner, _NAMES[leaf]])] = torch.tensor(array)  # a copy: never donated
    return state


def transplant(params: Mapping[str, Any], batch_stats: Mapping[str, Any], module: nn.Module):
    """Copies parameters and running statistics into the network's twin.

    Raises:
      RuntimeError: where names or shapes do not match, one to one.
    """
    module.load_state_dict(to_state_dict(params, module) | to_state_dict(batch_stats, module))
