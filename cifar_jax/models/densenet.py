"""DenseNet-121 for 32x32 images: Huang et al., "Densely Connected Convolutional Networks" (2017).

arXiv:1608.06993. The sizes are those of the paper's DenseNet-121 for ImageNet.

| layer | output |
|---|---|
| conv 3x3, 64 | 32 x 32 x 64 |
| dense block 1: 6 layers | 32 x 32 x 256 |
| BN, relu, conv 1x1, 128, average pool 2 | 16 x 16 x 128 |
| dense block 2: 12 layers | 16 x 16 x 512 |
| BN, relu, conv 1x1, 256, average pool 2 | 8 x 8 x 256 |
| dense block 3: 24 layers | 8 x 8 x 1024 |
| BN, relu, conv 1x1, 512, average pool 2 | 4 x 4 x 512 |
| dense block 4: 16 layers | 4 x 4 x 1024 |
| BN, relu, global average pool, dense classes | classes |

A layer is BN, relu, conv 1x1 with 128 filters, BN, relu and conv 3x3 with 32 filters; its output
is appended to its input. Convolutions have no bias. With 100 classes the network has 7,048,548
parameters: torchvision's densenet121 has 7,978,856, of which 922,500 are for its 900 additional
classes, 7,680 for its larger stem and 128 for the stem's BN.

Deviations from the paper: the stem is one 3x3 convolution with stride 1 without BN, relu and
max-pool, as in kuangliu/pytorch-cifar and weiaicunzai/pytorch-cifar100. As in the authors' code,
the transitions have a relu, which neither the paper's text nor pytorch-cifar100 has. The
initializers are those of resnet.py; BN has eps 1e-5 and momentum 0.1 (0.9 in Flax).
"""

import itertools
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.models.layers import (
    BatchNorm,
    DenseHead,
    Paths,
    he_conv,
    mean_over_pixels,
    torch_linear,
)


class DenseLayer(nnx.Module):
    """BN, relu, conv 1x1, BN, relu, conv 3x3, appended to the input: I to I + growth channels.

    Args:
      in_features: Number of input channels, I.
      growth: Number of channels that the layer appends.
      conv: A function of (in_features, features, kernel_size) that returns a convolution.
      norm: A function of features that returns a BatchNorm.
    """

    def __init__(self, in_features: int, growth: int, conv, norm):
        self.bn1 = norm(in_features)
        self.conv1 = conv(in_features, 4 * growth, 1)
        self.bn2 = norm(4 * growth)
        self.conv2 = conv(4 * growth, growth, 3)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, I] to [B, H, W, I + growth]."""
        new = self.conv1(nnx.relu(self.bn1(x)))
        new = self.conv2(nnx.relu(self.bn2(new)))
        return jnp.concatenate([x, new], axis=-1)


class Transition(nnx.Module):
    """BN, relu, conv 1x1 and average pool: [B, H, W, I] to [B, H // 2, W // 2, I // 2].

    Args:
      in_features: Number of input channels, I.
      conv: A function of (in_features, features, kernel_size) that returns a convolution.
      norm: A function of features that returns a BatchNorm.
    """

    def __init__(self, in_features: int, conv, norm):
        self.bn = norm(in_features)
        self.conv = conv(in_features, in_features // 2, 1)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the transition."""
        return nnx.avg_pool(self.conv(nnx.relu(self.bn(x))), (2, 2), (2, 2))


class DenseNet(DenseHead):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      depths: Number of layers per dense block.
      growth: Number of channels that each layer appends; the stem has twice as many.
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        depths: Sequence[int] = (6, 12, 24, 16),
        growth: int = 32,
        dtype=jnp.float32,
    ):
        conv = partial(he_conv, dtype=dtype, rngs=rngs)
        norm = partial(BatchNorm, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.depths = tuple(depths)
        features = 2 * growth
        self.conv_stem = conv(3, features, 3)
        layers, transitions = [], []
        for i, depth in enumerate(depths):
            if i > 0:
                transitions.append(Transition(features, conv, norm))
                features //= 2
            for _ in range(depth):
                layers.append(DenseLayer(features, growth, conv, norm))
                features += growth
        self.layers, self.transitions = nnx.List(layers), nnx.List(transitions)
        self.bn = norm(features)
        self.dense = torch_linear(features, num_classes, rngs=rngs)

    def features(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns the features [B, D] after the global average pool; rngs is unused."""
        del rngs
        x = self.conv_stem(images)
        layers = iter(self.layers)
        for i, depth in enumerate(self.depths):
            if i > 0:
                x = self.transitions[i - 1](x)
            for layer in itertools.islice(layers, depth):
                x = layer(x)
        return mean_over_pixels(nnx.relu(self.bn(x)))

    def groups(self) -> tuple[Paths, ...]:
        """Returns the prefixes of the head, the dense blocks (the last one first) and the stem.

        A transition belongs to the dense block after it.
        """
        blocks, start = [], 0
        for i, depth in enumerate(self.depths):
            paths = [("layers", j) for j in range(start, start + depth)]
            blocks.append([("transitions", i - 1), *paths] if i > 0 else paths)
            start += depth
        blocks[-1].append(("bn",))
        return (self.head_paths(), *map(tuple, reversed(blocks)), (("conv_stem",),))
