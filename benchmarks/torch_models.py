"""PyTorch versions of the networks, used by equality tests and by `benchmarks.versus_torch`.

Modules and options have the same names as in `cifar_jax.models`, so that parameters can be copied
by name.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from flax.traverse_util import flatten_dict
from torch import nn
from torch.nn import functional as F

from cifar_jax.models.layers import per_layer

# The defaults of Keras. Its momentum of 0.99 corresponds to 0.01 in PyTorch.
KERAS_NORM = dict(eps=1e-3, momentum=0.01)


class FlatLinear(nn.Linear):
    """A dense layer after `flatten`.

    PyTorch orders its inputs by channel and cifar_jax orders them by pixel, so `to_state_dict` has
    to permute the weights.

    Args:
      pixels: Height times width of the flattened array.
      channels: The number of channels of the flattened array.
      units: The number of outputs.
    """

    def __init__(self, pixels: int, channels: int, units: int):
        super().__init__(pixels * channels, units)
        self.pixels = pixels


class SameConv2d(nn.Conv2d):
    """A convolution with Keras' "same" padding, which pads an odd pixel at the bottom and right."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, O, ceil(H / stride), ceil(W / stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        sides = []
        for size in (x.shape[3], x.shape[2]):  # F.pad starts with the last dimension
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [total // 2, total - total // 2]
        return super().forward(F.pad(x, sides))


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


class CNNSmall(nn.Module):
    """See cifar_jax/models/cnn_small.py."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 5)
        self.conv2 = nn.Conv2d(8, 16, 3)
        self.dense1 = FlatLinear(6 * 6, 16, 128)
        self.dense2 = nn.Linear(128, 32)
        self.dense3 = nn.Linear(32, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = F.max_pool2d(F.relu(self.conv1(images)), 2)
        x = F.avg_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        return self.dense3(F.relu(self.dense2(F.relu(self.dense1(x)))))


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


class Plain(nn.Module):
    """See cifar_jax/models/plain.py."""

    def __init__(
        self,
        num_classes: int,
        *,
        layers: Sequence[int | str],
        padding: str = "SAME",
        dropout: float | Sequence[float] = 0.0,
    ):
        super().__init__()
        rates = iter(per_layer(dropout, layers.count("D"), "dropout"))
        size, features, pixels = 32, 3, 0  # pixels: of the last flattened array
        made = []
        for layer in layers:
            if layer == "F":
                made.append(nn.Flatten())
                pixels = size * size
            elif layer == "M":
                made.append(nn.MaxPool2d(2))
                size //= 2
            elif layer == "B":
                made.append((nn.BatchNorm1d if pixels else nn.BatchNorm2d)(features, **KERAS_NORM))
            elif layer == "D":
                made.append(nn.Dropout(next(rates)))
            elif pixels:
                made.append(FlatLinear(pixels, features, layer))
                pixels, features = 1, layer
            else:
                made.append(nn.Conv2d(features, layer, 3, padding=padding.lower()))
                size, features = size - 2 * (padding == "VALID"), layer
        self.layers = nn.ModuleList(made)
        self.dense = FlatLinear(pixels, features, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = images
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                x = F.relu(x)
        return self.dense(x)


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


class Bottleneck(nn.Module):
    """See cifar_jax/models/resnet50.py."""

    def __init__(self, in_features: int, features: int, stride: int, is_first: bool):
        super().__init__()
        norm = partial(nn.BatchNorm2d, eps=1.001e-5, momentum=0.01)
        self.is_first = is_first
        if is_first:
            self.conv0 = nn.Conv2d(in_features, 4 * features, 1, stride)
            self.bn0 = norm(4 * features)
        self.conv1 = nn.Conv2d(in_features, features, 1, stride)
        self.bn1 = norm(features)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self.bn2 = norm(features)
        self.conv3 = nn.Conv2d(features, 4 * features, 1)
        self.bn3 = norm(4 * features)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, 4 * features, H / stride, W / stride]."""
        shortcut = self.bn0(self.conv0(x)) if self.is_first else x
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet50(nn.Module):
    """See cifar_jax/models/resnet50.py."""

    def __init__(self, num_classes: int, *, depths: Sequence[int] = (3, 4, 6, 3), width: int = 64):
        super().__init__()
        self.conv_stem = nn.Conv2d(3, width, 7, 2, padding=3)
        self.bn_stem = nn.BatchNorm2d(width, eps=1.001e-5, momentum=0.01)
        blocks, in_features = [], width
        for stage, depth in enumerate(depths):
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(Bottleneck(in_features, width * 2**stage, stride, i == 0))
                in_features = 4 * width * 2**stage
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Linear(in_features, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns logits [B, num_classes] of images [B, 3, 32, 32]."""
        x = F.relu(self.bn_stem(self.conv_stem(images)))
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        return self.dense(self.blocks(x).mean((2, 3)))


def _plain(layers: str, **options):
    """Returns a factory of Plain networks whose `layers` are given as one string."""
    parsed = tuple(int(word) if word.isdigit() else word for word in layers.split())
    return partial(Plain, layers=parsed, **options)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "cnn13": _plain(
        "64 B 64 B D M 128 B D 128 M 256 B D 256 M 512 B D 512 M 512 B D 512 M F 256 B D 128"
    ),
    "cnn2": CNN2,
    "cnn3": CNN3,
    "cnn4": CNN4,
    "cnn9": _plain("64 B 64 B D M 128 B D 128 M 256 B D 256 M F 256 B D 128"),
    "cnn_deep": CNNDeep,
    "cnn_small": CNNSmall,
    "inception_resnet": InceptionResNet,
    "resnet18": partial(ResNet, depths=(2, 2, 2, 2)),
    "resnet34": partial(ResNet, depths=(3, 4, 6, 3)),
    "resnet50": ResNet50,
    "school": _plain(
        "128 128 B M D 256 B 256 B M D 512 B 512 B D F 512 D B", padding="VALID", dropout=0.3
    ),
    "simple": _plain("64 128 M 256 M 512 B 1024 B M D F 256 D", padding="VALID", dropout=0.2),
    "simple_initial": _plain("64 128 M D F", padding="VALID", dropout=0.2),
    "stacked3": _plain("32 64 128 M B D F 256 512 B D", padding="VALID", dropout=0.3),
    "vgg16": _plain("64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M F"),
}

_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def to_state_dict(arrays: Mapping[str, Any], module: nn.Module) -> dict[str, torch.Tensor]:
    """Converts a tree of cifar_jax (params, batch_stats or gradients) to PyTorch.

    Args:
      arrays: A nested dict. Convolution kernels are [h, w, I, O], dense kernels [I, O].
      module: The PyTorch version of the network, which is not modified.

    Returns:
      A dict from names in module.state_dict() to tensors. Convolution weights are [O, I, h, w],
      dense weights [O, I].
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
        state[".".join([*owner, _NAMES[leaf]])] = torch.tensor(
            array
        )  # copies, so that donation is safe
    return state


def transplant(params: Mapping[str, Any], batch_stats: Mapping[str, Any], module: nn.Module):
    """Copies parameters and running statistics into the PyTorch version of the network.

    Args:
      params: A nested dict of the parameters.
      batch_stats: A nested dict of the running statistics.
      module: The PyTorch network, which is modified in place.

    Raises:
      RuntimeError: If the names or shapes of the two networks differ.
    """
    module.load_state_dict(to_state_dict(params, module) | to_state_dict(batch_stats, module))
