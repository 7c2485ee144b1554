"""ResNeXt: Xie et al., "Aggregated Residual Transformations for Deep Neural Networks" (2016).

| layer | output | groups of resnext29 |
|---|---|---|
| conv 3x3, 64, BN, relu | 32 x 32 x 64 | |
| stage 1: bottlenecks of C groups of d, 256 | 32 x 32 x 256 | 8 of 64 |
| stage 2: bottlenecks of C groups of 2 d, 512, the first with stride 2 | 16 x 16 x 512 | 8 of 128 |
| stage 3: bottlenecks of C groups of 4 d, 1024, the first with stride 2 | 8 x 8 x 1024 | 8 of 256 |
| global average pool, dense classes | classes | |

This is the paper's network for CIFAR, of which resnext29 (8x64d) has three bottlenecks per stage. A
bottleneck consists of conv 1x1, BN, relu, conv 3x3 in C groups (the cardinality), BN, relu, conv
1x1, BN, and a shortcut added before the last relu. Where the shape changes, the shortcut is a 1x1
convolution with BN. The stride is in the 3x3 convolution. resnext29 has 34,518,948 parameters with
100 classes; the paper's 34.4M is the number with 10 classes.

As in the authors' code (facebookresearch/ResNeXt), no convolution has a bias, kernels are He normal
by fan-out, and dense weights are uniform in +-1 / sqrt(fan-in) with zero biases. BN has the
defaults of Torch: eps 1e-5 and momentum 0.1 (0.9 in Flax). There are no deviations.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.models.layers import (
    BatchNorm,
    DenseHead,
    Linear,
    Paths,
    block_sizes,
    he_conv,
    stage_groups,
    torch_init,
)


class GroupedBottleneck(nnx.Module):
    """One residual block: [B, H, W, I] to [B, ceil(H / s), ceil(W / s), O].

    Args:
      in_features: Number of input channels, I.
      inner_features: Number of channels of the 3x3 convolution, over all groups.
      features: Number of output channels, O.
      stride: The stride s of the 3x3 convolution.
      cardinality: Number of groups of the 3x3 convolution.
      conv: A function of (in_features, features, kernel_size, stride=1) and options that returns a
        convolution.
      norm: A function of features that returns a BatchNorm.
    """

    def __init__(
        self,
        in_features: int,
        inner_features: int,
        features: int,
        stride: int,
        cardinality: int,
        conv,
        norm,
    ):
        self.conv1 = conv(in_features, inner_features, 1)
        self.bn1 = norm(inner_features)
        self.conv2 = conv(
            inner_features, inner_features, 3, stride, feature_group_count=cardinality
        )
        self.bn2 = norm(inner_features)
        self.conv3 = conv(inner_features, features, 1)
        self.bn3 = norm(features)
        self.has_projection = stride != 1 or in_features != features
        if self.has_projection:
            self.conv_shortcut = conv(in_features, features, 1, stride)
            self.bn_shortcut = norm(features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block."""
        shortcut = self.bn_shortcut(self.conv_shortcut(x)) if self.has_projection else x
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = nnx.relu(self.bn2(self.conv2(x)))
        return nnx.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNeXt(DenseHead):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      depths: Number of bottlenecks per stage.
      cardinality: Number of groups C of the 3x3 convolutions.
      width: Number of channels d of a group in the first stage; it doubles with each stage.
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        depths: Sequence[int],
        cardinality: int = 8,
        width: int = 64,
        dtype=jnp.float32,
    ):
        conv = partial(he_conv, dtype=dtype, rngs=rngs)
        norm = partial(BatchNorm, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.depths = tuple(depths)
        self.conv_stem = conv(3, 64, 3)
        self.bn_stem = norm(64)
        blocks = []
        for in_features, features, stride in block_sizes(depths, 64, 256):
            inner = cardinality * width * features // 256
            blocks.append(
                GroupedBottleneck(in_features, inner, features, stride, cardinality, conv, norm)
            )
        self.blocks = nnx.List(blocks)
        self.dense = Linear(features, num_classes, kernel_init=torch_init, rngs=rngs)

    def features(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns the features [B, D] after the global average pool; rngs is unused."""
        del rngs
        x = nnx.relu(self.bn_stem(self.conv_stem(images)))
        for block in self.blocks:
            x = block(x)
        return jnp.mean(x, axis=(1, 2))

    def groups(self) -> tuple[Paths, ...]:
        """Returns the prefixes of the head, the stages (the last one first) and the stem."""
        return stage_groups(self.depths)
