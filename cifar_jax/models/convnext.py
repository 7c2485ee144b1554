"""ConvNeXt-T for 32x32 images: Liu et al., "A ConvNet for the 2020s" (2022, arXiv:2201.03545).

| layer | output |
|---|---|
| conv 3x3, 96, LN | 32 x 32 x 96 |
| stage 1: 3 blocks of 96 | 32 x 32 x 96 |
| LN, conv 2x2 / 2; stage 2: 3 blocks of 192 | 16 x 16 x 192 |
| LN, conv 2x2 / 2; stage 3: 9 blocks of 384 | 8 x 8 x 384 |
| LN, conv 2x2 / 2; stage 4: 3 blocks of 768 | 4 x 4 x 768 |
| global average pool, LN, dense classes | classes |

A block with C channels is a depthwise convolution 7x7, LN, a dense layer of 4 C per pixel, gelu, a
dense layer of C per pixel and a learned factor per channel, initially 1e-6. Stochastic depth drops
the result at a rate that grows linearly to `drop_path` in the last block. Then the block's input is
added. LN normalizes the channels of each pixel, with eps 1e-6. All layers have biases.

With 100 classes the network has 27,895,012 parameters. torchvision's convnext_tiny, whose stem is a
4x4 convolution, has 28,589,128 with 1,000 classes: 692,100 more in the head and 2,016 in the stem.

Deviations from the paper: the stem is a 3x3 convolution with stride 1 instead of a 4x4 convolution
with stride 4, as in OpenMixup's ConvNeXt_CIFAR, so that the stages have 32, 16, 8 and 4 pixels. The
kernels of convolutions are initialized as in OpenMixup too: LeCun normal, truncated. Those of dense
layers are normal with standard deviation 0.02, and all biases are 0. The residual sums are float32
even if the computation is in bfloat16, whose 8 significant bits would lose a branch times 1e-6.
"""

import itertools
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import lecun_normal, normal

from cifar_jax.models.layers import (
    Conv,
    DenseHead,
    LayerNorm,
    Linear,
    Paths,
    gelu,
    mean_over_pixels,
    stage_groups,
)
from cifar_jax.models.stochastic_depth import StochasticDepth, linear_rates


class LayerScale(nnx.Module):
    """Multiplies each channel by a learned factor, `gamma`.

    Args:
      num_features: Number of channels C.
    """

    def __init__(self, num_features: int):
        self.gamma = nnx.Param(jnp.full(num_features, 1e-6))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps x [..., C] to the same shape, in float32 or wider."""
        return x * self.gamma[...]


class Block(nnx.Module):
    """A residual block: [B, H, W, C] to the same shape.

    Args:
      features: Number of channels, C.
      drop_rate: The probability with which an image loses the residual branch.
      conv: A function of (in_features, features, kernel_size) and options that returns a
        convolution.
      linear: A function of (in_features, features) that returns a dense layer.
      norm: A function of features that returns a LayerNorm.
    """

    def __init__(self, features: int, drop_rate: float, conv, linear, norm):
        self.depthwise = conv(features, features, 7, feature_group_count=features)
        self.norm = norm(features)
        self.dense1 = linear(features, 4 * features)
        self.dense2 = linear(4 * features, features)
        self.layer_scale = LayerScale(features)
        self.drop_path = StochasticDepth(drop_rate)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """Applies the block; rngs has the stream `dropout`."""
        new = self.norm(self.depthwise(x))
        new = self.layer_scale(self.dense2(gelu(self.dense1(new))))
        return x + self.drop_path(new, rngs=rngs)


class Downsample(nnx.Module):
    """LN, then a convolution 2x2 with stride 2: [B, H, W, I] to [B, H // 2, W // 2, O]."""

    def __init__(self, in_features: int, features: int, conv, norm):
        self.norm = norm(in_features)
        self.conv = conv(in_features, features, 2, strides=2, padding="VALID")

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the two layers."""
        return self.conv(self.norm(x))


class ConvNeXt(DenseHead):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      depths: Number of blocks per stage.
      width: Number of channels of the first stage; it doubles with each stage.
      drop_path: Rate of stochastic depth of the last block, in [0, 1).
      dtype: Dtype of the computation; parameters, LN, residual sums and logits are float32.

    Raises:
      UserError: If drop_path is outside [0, 1).
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        depths: Sequence[int] = (3, 3, 9, 3),
        width: int = 96,
        drop_path: float = 0.1,
        dtype=jnp.float32,
    ):
        norm = partial(LayerNorm, epsilon=1e-6, rngs=rngs)
        linear = partial(Linear, kernel_init=normal(0.02), dtype=dtype, rngs=rngs)

        def conv(in_features, features, size, **options):
            return Conv(
                in_features, features, (size, size),
                kernel_init=lecun_normal(), dtype=dtype, rngs=rngs, **options,
            )  # fmt: skip

        self.depths = tuple(depths)
        self.conv_stem = conv(3, width, 3)
        self.norm_stem = norm(width)
        rates = iter(linear_rates(drop_path, sum(depths)))
        blocks, downsamples = [], []
        for stage, depth in enumerate(depths):
            features = width * 2**stage
            if stage > 0:
                downsamples.append(Downsample(features // 2, features, conv, norm))
            for _ in range(depth):
                blocks.append(Block(features, next(rates), conv, linear, norm))
        self.blocks, self.downsamples = nnx.List(blocks), nnx.List(downsamples)
        self.norm = norm(features)
        self.dense = Linear(features, num_classes, kernel_init=normal(0.02), rngs=rngs)

    def features(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns the features [B, D] after the last LN; rngs has the stream `dropout`."""
        x = self.norm_stem(self.conv_stem(images))
        blocks = iter(self.blocks)
        for stage, depth in enumerate(self.depths):
            if stage > 0:
                x = self.downsamples[stage - 1](x)
            for block in itertools.islice(blocks, depth):
                x = block(x, rngs)
        return self.norm(mean_over_pixels(x))

    def groups(self) -> tuple[Paths, ...]:
        """Returns the prefixes of the head, the stages (the last one first) and the stem.

        The convolution that precedes a stage belongs to it, and the last LN to the last stage.
        """
        head, *stages, _ = stage_groups(self.depths)
        for i, stage in enumerate(range(len(stages) - 1, 0, -1)):
            stages[i] += (("downsamples", stage - 1),)
        stages[0] += (("norm",),)
        return (head, *stages, (("conv_stem",), ("norm_stem",)))
