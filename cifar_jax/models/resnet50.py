"""ResNet-50, version 1 (He et al., 2015), as in keras.applications.ResNet50.

| layer | output |
|---|---|
| conv 7x7 / 2, 64, BN, relu, max-pool 3x3 / 2 | 8 x 8 x 64 |
| stage 1: 3 bottlenecks of 64 | 8 x 8 x 256 |
| stage 2: 4 bottlenecks of 128, the first with stride 2 | 4 x 4 x 512 |
| stage 3: 6 bottlenecks of 256, the first with stride 2 | 2 x 2 x 1024 |
| stage 4: 3 bottlenecks of 512, the first with stride 2 | 1 x 1 x 2048 |
| global average pool, dense classes | classes |

A bottleneck consists of conv 1x1, BN, relu, conv 3x3, BN, relu, conv 1x1 with four times as many
filters, BN, and a shortcut added before the last relu. With 100 classes the network has 23,739,492
parameters; Keras reports 23,792,612, which includes the 53,120 running means and variances. As in
Keras, the stride is in the first 1x1 convolution, every convolution has a bias, BN has eps 1.001e-5
and momentum 0.99, and kernels are Glorot uniform. torchvision's ResNet-50 differs in each of these.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.models.layers import BatchNorm, Conv, Linear, keras_init
from cifar_jax.ops.pooling import max_pool


class Bottleneck(nnx.Module):
    """One residual block: [B, H, W, I] to [B, ceil(H / s), ceil(W / s), 4 * features]."""

    def __init__(
        self, in_features: int, features: int, stride: int, is_first: bool, rngs: nnx.Rngs, dtype
    ):
        conv = dict(kernel_init=keras_init, dtype=dtype, rngs=rngs)
        norm = dict(momentum=0.99, epsilon=1.001e-5, rngs=rngs)
        self.is_first = is_first
        if is_first:
            self.conv0 = Conv(in_features, 4 * features, (1, 1), stride, padding="VALID", **conv)
            self.bn0 = BatchNorm(4 * features, **norm)
        self.conv1 = Conv(in_features, features, (1, 1), stride, padding="VALID", **conv)
        self.bn1 = BatchNorm(features, **norm)
        self.conv2 = Conv(features, features, (3, 3), **conv)
        self.bn2 = BatchNorm(features, **norm)
        self.conv3 = Conv(features, 4 * features, (1, 1), **conv)
        self.bn3 = BatchNorm(4 * features, **norm)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block."""
        shortcut = self.bn0(self.conv0(x)) if self.is_first else x
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = nnx.relu(self.bn2(self.conv2(x)))
        return nnx.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet50(nnx.Module):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      depths: Number of blocks per stage.
      width: Number of filters of the first stage's bottlenecks; it doubles with each stage.
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        depths: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        dtype=jnp.float32,
    ):
        self.conv_stem = Conv(
            3, width, (7, 7), 2, padding=3, kernel_init=keras_init, dtype=dtype, rngs=rngs
        )
        self.bn_stem = BatchNorm(width, momentum=0.99, epsilon=1.001e-5, rngs=rngs)
        blocks, in_features = [], width
        for stage, depth in enumerate(depths):
            features = width * 2**stage
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(Bottleneck(in_features, features, stride, i == 0, rngs, dtype))
                in_features = 4 * features
        self.blocks = nnx.List(blocks)
        self.dense = Linear(in_features, num_classes, kernel_init=keras_init, rngs=rngs)

    def __call__(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits [B, num_classes] for images [B, 32, 32, 3]; rngs is unused."""
        del rngs
        x = nnx.relu(self.bn_stem(self.conv_stem(images)))
        # Keras pads with zeros, which after a relu is equivalent to max_pool's -inf.
        x = max_pool(x, 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x)
        return self.dense(jnp.mean(x, axis=(1, 2)))
