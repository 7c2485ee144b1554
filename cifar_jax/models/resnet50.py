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
parameters; Keras reports 23,792,612, which includes the 53,120 running means and variances.

As in Keras, the stride is in the first 1x1 convolution, every convolution has a bias, BN has eps
1.001e-5 and momentum 0.99, and kernels are Glorot uniform. With conventions="torch", as in
torchvision, the stride is in the 3x3 convolution, convolutions have no biases, BN has eps 1e-5 and
momentum 0.1 (0.9 in Flax), kernels are He normal by fan-out, and dense weights and biases are
uniform in +-1 / sqrt(fan-in); the network then has 23,712,932 parameters.

With stem="cifar", the stem is one 3x3 convolution with stride 1 and no max-pool follows, so that
stage 1 has 32 x 32 pixels and stage 4 has 4 x 4, as in public repositories for CIFAR such as
weiaicunzai/pytorch-cifar100; with conventions="torch", this network has 23,705,252 parameters.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.errors import unknown
from cifar_jax.models.layers import (
    STEMS,
    BatchNorm,
    Conv,
    DenseHead,
    Linear,
    Paths,
    block_sizes,
    he_fan_out_init,
    keras_init,
    stage_groups,
    torch_linear,
)
from cifar_jax.ops.pooling import max_pool

# {framework: (options of convolutions, options of BatchNorm)}.
CONVENTIONS = {
    "keras": (
        dict(use_bias=True, kernel_init=keras_init),
        dict(momentum=0.99, epsilon=1.001e-5),
    ),
    "torch": (
        dict(use_bias=False, kernel_init=he_fan_out_init),
        dict(momentum=0.9, epsilon=1e-5),
    ),
}


class Bottleneck(nnx.Module):
    """One residual block: [B, H, W, I] to [B, ceil(H / s), ceil(W / s), 4 * features].

    Args:
      in_features: Number of input channels, I.
      features: Number of channels of the 3x3 convolution.
      strides: The strides of the first and the second convolution; the block's stride s is their
        product.
      conv: A function of (in_features, features, kernel_size, stride) that returns a convolution.
      norm: A function of features that returns a BatchNorm.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        strides: tuple[int, int],
        conv,
        norm,
    ):
        stride = strides[0] * strides[1]
        self.has_projection = stride != 1 or in_features != 4 * features
        if self.has_projection:
            self.conv0 = conv(in_features, 4 * features, 1, stride)
            self.bn0 = norm(4 * features)
        self.conv1 = conv(in_features, features, 1, strides[0])
        self.bn1 = norm(features)
        self.conv2 = conv(features, features, 3, strides[1])
        self.bn2 = norm(features)
        self.conv3 = conv(features, 4 * features, 1, 1)
        self.bn3 = norm(4 * features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block."""
        shortcut = self.bn0(self.conv0(x)) if self.has_projection else x
        x = nnx.relu(self.bn1(self.conv1(x)))
        x = nnx.relu(self.bn2(self.conv2(x)))
        return nnx.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet50(DenseHead):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      depths: Number of blocks per stage.
      width: Number of filters of the first stage's bottlenecks; it doubles with each stage.
      stem: "imagenet" or "cifar".
      conventions: "keras" or "torch".
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.

    Raises:
      UserError: If the stem or the conventions are unknown.
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        depths: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        stem: str = "imagenet",
        conventions: str = "keras",
        dtype=jnp.float32,
    ):
        if stem not in STEMS:
            raise unknown("stem", stem, STEMS)
        if conventions not in CONVENTIONS:
            raise unknown("conventions", conventions, CONVENTIONS)
        conv_options, norm_options = CONVENTIONS[conventions]
        norm = partial(BatchNorm, rngs=rngs, **norm_options)

        def conv(in_features, features, size, stride):
            return Conv(
                in_features, features, (size, size), stride,
                padding=size // 2, dtype=dtype, rngs=rngs, **conv_options,
            )  # fmt: skip

        self.stem, self.depths = stem, tuple(depths)
        self.conv_stem = conv(3, width, 3, 1) if stem == "cifar" else conv(3, width, 7, 2)
        self.bn_stem = norm(width)
        blocks = []
        for in_features, features, stride in block_sizes(depths, width, 4 * width):
            strides = (stride, 1) if conventions == "keras" else (1, stride)
            blocks.append(Bottleneck(in_features, features // 4, strides, conv, norm))
        self.blocks = nnx.List(blocks)
        if conventions == "torch":
            self.dense = torch_linear(features, num_classes, rngs=rngs)
        else:
            self.dense = Linear(features, num_classes, kernel_init=keras_init, rngs=rngs)

    def features(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns the features [B, D] after the global average pool; rngs is unused."""
        del rngs
        x = nnx.relu(self.bn_stem(self.conv_stem(images)))
        if self.stem == "imagenet":
            # Keras pads with zeros, which after a relu is equivalent to max_pool's -inf.
            x = max_pool(x, 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x)
        return jnp.mean(x, axis=(1, 2))

    def groups(self) -> tuple[Paths, ...]:
        """Returns the prefixes of the head, the stages (the last one first) and the stem."""
        return stage_groups(self.depths)
