"""MobileNetV2: Sandler et al., "Inverted Residuals and Linear Bottlenecks" (2018).

arXiv:1801.04381. The strides for 32x32 images are those of chenyaofo/pytorch-cifar-models.

| layer | output |
|---|---|
| conv 3x3, 32, BN, relu6 | 32 x 32 x 32 |
| stage 1: one block, 16, expansion 1 | 32 x 32 x 16 |
| stage 2: two blocks, 24, expansion 6 | 32 x 32 x 24 |
| stage 3: three blocks, 32, expansion 6, / 2 | 16 x 16 x 32 |
| stage 4: four blocks, 64, expansion 6, / 2 | 8 x 8 x 64 |
| stage 5: three blocks, 96, expansion 6 | 8 x 8 x 96 |
| stage 6: three blocks, 160, expansion 6, / 2 | 4 x 4 x 160 |
| stage 7: one block, 320, expansion 6 | 4 x 4 x 320 |
| conv 1x1, 1280, BN, relu6 | 4 x 4 x 1280 |
| global average pool, dropout 0.2, dense classes | classes |

A block of expansion t maps I channels to t * I with conv 1x1, BN and relu6 (absent if t = 1),
applies a depthwise convolution 3x3, BN and relu6, and maps to the stage's number of channels with
conv 1x1 and BN, without an activation. Its input is added if the shape is the same. Convolutions
have no bias; their kernels are He normal by fan-out, that of the dense layer is normal with
standard deviation 0.01; BN has eps 1e-5 and momentum 0.1 (0.9 in Flax).

With 100 classes the network has 2,351,972 parameters, the 2.35M in the logs of
pytorch-cifar-models; torchvision's mobilenet_v2 has 3,504,872 with 1,000 classes.

Deviation from the paper: the stem and stage 2 have stride 1 instead of 2, so that the last stages
have 4 x 4 pixels. (weiaicunzai/pytorch-cifar100 also replaces the stem, by a 1x1 convolution with
padding, and has biases and a convolution as its head: 2.36M parameters.)
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import normal

from cifar_jax.errors import UserError
from cifar_jax.models.layers import (
    BatchNorm,
    DenseHead,
    Dropout,
    Linear,
    Paths,
    he_conv,
    stage_groups,
)

# (expansion, number of channels, stride of the first block) of each stage.
STAGES = ((1, 16, 1), (6, 24, 1), (6, 32, 2), (6, 64, 2), (6, 96, 1), (6, 160, 2), (6, 320, 1))


def scaled(features: int, width: float) -> int:
    """Returns features * width rounded to a multiple of 8, at least 8 and 90% of the product."""
    product = features * width
    rounded = max(8, int(product + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * product else rounded


class Block(nnx.Module):
    """An inverted residual: [B, H, W, I] to [B, H / s, W / s, O].

    Args:
      in_features: Number of input channels, I.
      features: Number of output channels, O.
      expansion: Number of channels of the depthwise convolution, as a multiple of I.
      stride: The stride s of the depthwise convolution.
      conv: A function of (in_features, features, kernel_size, stride=1) and options that returns a
        convolution.
      norm: A function of features that returns a BatchNorm.
    """

    def __init__(self, in_features: int, features: int, *, expansion: int, stride: int, conv, norm):
        hidden = expansion * in_features
        self.expands = expansion != 1
        self.has_shortcut = stride == 1 and in_features == features
        if self.expands:
            self.conv_expand = conv(in_features, hidden, 1)
            self.bn_expand = norm(hidden)
        self.depthwise = conv(hidden, hidden, 3, stride, feature_group_count=hidden)
        self.bn_depthwise = norm(hidden)
        self.conv_project = conv(hidden, features, 1)
        self.bn_project = norm(features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block."""
        new = nnx.relu6(self.bn_expand(self.conv_expand(x))) if self.expands else x
        new = nnx.relu6(self.bn_depthwise(self.depthwise(new)))
        new = self.bn_project(self.conv_project(new))
        return x + new if self.has_shortcut else new


class MobileNetV2(DenseHead):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      width: Factor of the number of channels, which are rounded to multiples of 8. As in the
        paper, a factor below 1 leaves the last convolution at 1280.
      depths: Number of blocks per stage; with fewer than seven numbers, the last stages are absent.
      dropout: Dropout rate before the dense layer.
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.

    Raises:
      UserError: If the width is not above 0, there are more than seven depths, or the dropout rate
        is outside [0, 1).
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        width: float = 1.0,
        depths: Sequence[int] = (1, 2, 3, 4, 3, 3, 1),
        dropout: float = 0.2,
        dtype=jnp.float32,
    ):
        if width <= 0:
            raise UserError(f"width must be above 0, got {width}")
        if len(depths) > len(STAGES):
            raise UserError(f"depths must be at most {len(STAGES)} numbers, got {tuple(depths)}")
        conv = partial(he_conv, dtype=dtype, rngs=rngs)
        norm = partial(BatchNorm, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.depths = tuple(depths)
        in_features = scaled(32, width)
        self.conv_stem = conv(3, in_features, 3)
        self.bn_stem = norm(in_features)
        blocks = []
        for depth, (expansion, count, first_stride) in zip(depths, STAGES, strict=False):
            for i in range(depth):
                stride = first_stride if i == 0 else 1
                settings = dict(expansion=expansion, stride=stride, conv=conv, norm=norm)
                blocks.append(Block(in_features, scaled(count, width), **settings))
                in_features = scaled(count, width)
        self.blocks = nnx.List(blocks)
        features = scaled(1280, max(1.0, width))
        self.conv_last = conv(in_features, features, 1)
        self.bn_last = norm(features)
        self.dropout = Dropout(dropout)
        self.dense = Linear(features, num_classes, kernel_init=normal(0.01), rngs=rngs)

    def features(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns the features [B, D] after the global average pool; rngs is unused."""
        del rngs
        x = nnx.relu6(self.bn_stem(self.conv_stem(images)))
        for block in self.blocks:
            x = block(x)
        return jnp.mean(nnx.relu6(self.bn_last(self.conv_last(x))), axis=(1, 2))

    def classify(self, features: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits [B, num_classes] for features [B, D]; rngs has the stream `dropout`."""
        return self.dense(self.dropout(features, rngs=rngs))

    def groups(self) -> tuple[Paths, ...]:
        """Returns the prefixes of the head, the stages (the last one first) and the stem."""
        return stage_groups(self.depths, end=(("conv_last",), ("bn_last",)))
