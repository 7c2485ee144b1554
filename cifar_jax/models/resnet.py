"""ResNets for 32x32 images: He et al., "Deep Residual Learning for Image Recognition" (2015).

| layer | output |
|---|---|
| conv 3x3, 64, BN, relu | 32 x 32 x 64 |
| stage 1: blocks of two conv 3x3, 64 | 32 x 32 x 64 |
| stage 2: blocks of two conv 3x3, 128, the first with stride 2 | 16 x 16 x 128 |
| stage 3: blocks of two conv 3x3, 256, the first with stride 2 | 8 x 8 x 256 |
| stage 4: blocks of two conv 3x3, 512, the first with stride 2 | 4 x 4 x 512 |
| global average pool, dense classes | classes |

resnet18 has (2, 2, 2, 2) blocks, resnet34 (3, 4, 6, 3). With 100 classes they have 11,220,132 and
21,328,292 parameters; with conventions="keras", 11,224,932 and 21,336,804.

Deviations from the paper, all customary for CIFAR: the stem is one 3x3 convolution with stride 1,
and shortcuts that change the shape are 1x1 convolutions with BN (the paper's option B).
stem="imagenet" selects the paper's stem, a 7x7 convolution with stride 2 and a 3x3 max-pool with
stride 2, after which stage 1 has 8 x 8 pixels.

conventions="torch" initializes, normalizes and pads as torchvision does: He normal kernels by
fan-out, dense weights and biases uniform in +-1 / sqrt(fan-in), BN with eps 1e-5 and momentum 0.1
(0.9 in Flax), symmetric padding. conventions="keras" has the defaults of Keras's layers: Glorot
uniform kernels, biases in the convolutions, BN with eps 1e-3 and momentum 0.99, and one more pixel
of padding at the bottom and the right in convolutions with stride 2.
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
    "torch": (
        dict(use_bias=False, kernel_init=he_fan_out_init),
        dict(momentum=0.9, epsilon=1e-5),
    ),
    "keras": (
        dict(use_bias=True, kernel_init=keras_init),
        dict(momentum=0.99, epsilon=1e-3),
    ),
}


class BasicBlock(nnx.Module):
    """relu(BN(conv(relu(BN(conv(x))))) + shortcut(x)): [B, H, W, I] to [B, H / s, W / s, O].

    Args:
      in_features: Number of input channels, I.
      features: Number of output channels, O.
      stride: The stride s of the first convolution.
      conv: A function of (in_features, features, kernel_size, stride) that returns a convolution.
      norm: A function of features that returns a BatchNorm.
    """

    def __init__(self, in_features: int, features: int, stride: int, conv, norm):
        self.conv1 = conv(in_features, features, 3, stride)
        self.bn1 = norm(features)
        self.conv2 = conv(features, features, 3, 1)
        self.bn2 = norm(features)
        self.has_projection = stride != 1 or in_features != features
        if self.has_projection:
            self.conv_shortcut = conv(in_features, features, 1, stride)
            self.bn_shortcut = norm(features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block."""
        shortcut = self.bn_shortcut(self.conv_shortcut(x)) if self.has_projection else x
        x = nnx.relu(self.bn1(self.conv1(x)))
        return nnx.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet(DenseHead):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      depths: Number of blocks per stage.
      width: Number of filters of the first stage; it doubles with each stage.
      stem: "cifar" or "imagenet".
      conventions: "torch" or "keras".
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.

    Raises:
      UserError: If the stem or the conventions are unknown.
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        depths: Sequence[int],
        width: int = 64,
        stem: str = "cifar",
        conventions: str = "torch",
        dtype=jnp.float32,
    ):
        if stem not in STEMS:
            raise unknown("stem", stem, STEMS)
        if conventions not in CONVENTIONS:
            raise unknown("conventions", conventions, CONVENTIONS)
        conv_options, norm_options = CONVENTIONS[conventions]
        norm = partial(BatchNorm, rngs=rngs, **norm_options)

        def conv(in_features, features, size, stride):
            padding = size // 2 if conventions == "torch" else "SAME"
            return Conv(
                in_features, features, (size, size), stride,
                padding=padding, dtype=dtype, rngs=rngs, **conv_options,
            )  # fmt: skip

        self.stem, self.depths = stem, tuple(depths)
        self.conv_stem = conv(3, width, 3, 1) if stem == "cifar" else conv(3, width, 7, 2)
        self.bn_stem = norm(width)
        blocks = []
        for in_features, features, stride in block_sizes(depths, width, width):
            blocks.append(BasicBlock(in_features, features, stride, conv, norm))
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
            x = max_pool(x, 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x)
        return jnp.mean(x, axis=(1, 2))

    def groups(self) -> tuple[Paths, ...]:
        """Returns the prefixes of the head, the stages (the last one first) and the stem."""
        return stage_groups(self.depths)
