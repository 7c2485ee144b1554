"""inception_resnet: GoogLeNet's branches in ResNet blocks, as proposed by the hybrid write-up.

| layer | output |
|---|---|
| conv 3x3, 64, BN, relu | 32 x 32 x 64 |
| stage 1: two blocks of 96, max-pool 2 | 16 x 16 x 96 |
| stage 2: two blocks of 192, max-pool 2 | 8 x 8 x 192 |
| stage 3: two blocks of 384 | 8 x 8 x 384 |
| global average pool, dense classes | classes |

A layer has three parallel branches: a 3x3 convolution, a 3x3 convolution with dilation 2, and a 3x3
max-pool with stride 1 followed by a 1x1 convolution. Their outputs, each with a third of the
filters, are concatenated. A block consists of layer, BN, relu, layer, BN and relu, with a shortcut
added before the last relu. Where the number of filters changes, the shortcut is a 1x1 convolution
with BN. 4,448,580 parameters with 100 classes.

The write-up specifies the three branches, the concatenation and the shortcut over two layers. The
code in the author's repository (chentalen2021/CIFAR100_classification) adds the dilation and the
1x1 convolution after the pool, which is GoogLeNet's (Szegedy et al., 2014). The numbers of filters,
the depth, the positions of BN and the pools between stages were chosen for this suite.

Deviations: the author's code is not followed where it differs from the write-up. It has one layer
per block, 32 filters per branch in every stage, no downsampling after the first stage (the stride
is not passed on), BN on two of the branches, LeakyReLU, and shortcut projections that are created
again, untrained, at every call.

Keras's conventions: same padding, Glorot uniform kernels, zero biases, eps 1e-3, momentum 0.99.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.errors import UserError
from cifar_jax.models.layers import BatchNorm, Conv, Linear, keras_init
from cifar_jax.ops.pooling import max_pool


class InceptionLayer(nnx.Module):
    """Three concatenated branches: [B, H, W, I] to [B, H, W, features]."""

    def __init__(self, in_features: int, features: int, rngs: nnx.Rngs, dtype):
        conv = dict(kernel_init=keras_init, dtype=dtype, rngs=rngs)
        branch = features // 3
        self.conv = Conv(in_features, branch, (3, 3), **conv)
        self.conv_dilated = Conv(in_features, branch, (3, 3), kernel_dilation=2, **conv)
        self.conv_pooled = Conv(in_features, branch, (1, 1), **conv)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Concatenates the outputs of the branches."""
        pooled = max_pool(x, 3, stride=1, padding=1)
        branches = (self.conv(x), self.conv_dilated(x), self.conv_pooled(pooled))
        return jnp.concatenate(branches, axis=-1)


class InceptionBlock(nnx.Module):
    """Two inception layers with a shortcut: [B, H, W, I] to [B, H, W, features]."""

    def __init__(self, in_features: int, features: int, rngs: nnx.Rngs, dtype):
        norm = dict(momentum=0.99, epsilon=1e-3, rngs=rngs)
        self.layer1 = InceptionLayer(in_features, features, rngs, dtype)
        self.bn1 = BatchNorm(features, **norm)
        self.layer2 = InceptionLayer(features, features, rngs, dtype)
        self.bn2 = BatchNorm(features, **norm)
        self.has_projection = in_features != features
        if self.has_projection:
            self.conv_shortcut = Conv(
                in_features, features, (1, 1), kernel_init=keras_init, dtype=dtype, rngs=rngs
            )
            self.bn_shortcut = BatchNorm(features, **norm)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block."""
        shortcut = self.bn_shortcut(self.conv_shortcut(x)) if self.has_projection else x
        x = nnx.relu(self.bn1(self.layer1(x)))
        return nnx.relu(self.bn2(self.layer2(x)) + shortcut)


class InceptionResNet(nnx.Module):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      features: Number of filters of the blocks in each stage; multiples of 3.
      depth: Number of blocks per stage.
      stem_features: Number of filters of the first convolution.
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.

    Raises:
      UserError: If a number of filters is not a multiple of 3.
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        features: Sequence[int] = (96, 192, 384),
        depth: int = 2,
        stem_features: int = 64,
        dtype=jnp.float32,
    ):
        if any(count % 3 for count in features):
            raise UserError(
                f"features must be multiples of 3, the number of branches, got {features}"
            )
        if len(features) > 6:  # 32 pixels can be halved five times
            raise UserError(f"features must be at most 6 numbers, one per stage, got {features}")
        self.conv_stem = Conv(
            3, stem_features, (3, 3), kernel_init=keras_init, dtype=dtype, rngs=rngs
        )
        self.bn_stem = BatchNorm(stem_features, momentum=0.99, epsilon=1e-3, rngs=rngs)
        stages, in_features = [], stem_features
        for count in features:
            blocks = []
            for _ in range(depth):
                blocks.append(InceptionBlock(in_features, count, rngs, dtype))
                in_features = count
            stages.append(nnx.List(blocks))
        self.stages = nnx.List(stages)
        self.dense = Linear(in_features, num_classes, kernel_init=keras_init, rngs=rngs)

    def __call__(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits [B, num_classes] for images [B, 32, 32, 3]; rngs is unused."""
        del rngs
        x = nnx.relu(self.bn_stem(self.conv_stem(images)))
        for i, blocks in enumerate(self.stages):
            if i > 0:
                x = max_pool(x, 2)
            for block in blocks:
                x = block(x)
        return self.dense(jnp.mean(x, axis=(1, 2)))
