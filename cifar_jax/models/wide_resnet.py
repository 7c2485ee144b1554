"""Wide ResNets: Zagoruyko and Komodakis, "Wide Residual Networks" (2016, arXiv:1605.07146).

| layer | output | output of WRN-28-10 |
|---|---|---|
| conv 3x3, 16 | 32 x 32 x 16 | 32 x 32 x 16 |
| stage 1: n blocks of two conv 3x3, 16 k | 32 x 32 x 16 k | 32 x 32 x 160 |
| stage 2: n blocks of two conv 3x3, 32 k, the first of stride 2 | 16 x 16 x 32 k | 16 x 16 x 320 |
| stage 3: n blocks of two conv 3x3, 64 k, the first of stride 2 | 8 x 8 x 64 k | 8 x 8 x 640 |
| BN, relu, global average pool, dense classes | classes | classes |

WRN-d-k has depth d = 6 n + 4 and widening factor k. BN and relu precede every convolution of a
block, and dropout its second convolution. Where the shape changes, the shortcut is a 1x1
convolution of the block's activated input. WRN-28-10 has 36,536,884 parameters with 100 classes.

As in the authors' code (szagoruyko/wide-residual-networks), no convolution has a bias, kernels are
He normal by fan-out, and dense weights are uniform in +-1 / sqrt(fan-in) with zero biases. BN has
the defaults of Torch: eps 1e-5 and momentum 0.1 (0.9 in Flax). There are no deviations.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.errors import UserError
from cifar_jax.models.layers import (
    BatchNorm,
    DenseHead,
    Dropout,
    Linear,
    Paths,
    block_sizes,
    he_conv,
    stage_groups,
    torch_init,
)


class WideBlock(nnx.Module):
    """A pre-activation block with dropout: [B, H, W, I] to [B, H / s, W / s, O].

    Args:
      in_features: Number of input channels, I.
      features: Number of output channels, O.
      stride: The stride s of the first convolution.
      dropout: Dropout rate between the convolutions.
      conv: A function of (in_features, features, kernel_size, stride=1) that returns a
        convolution.
      norm: A function of features that returns a BatchNorm.
    """

    def __init__(self, in_features: int, features: int, stride: int, dropout: float, conv, norm):
        self.bn1 = norm(in_features)
        self.conv1 = conv(in_features, features, 3, stride)
        self.bn2 = norm(features)
        self.dropout = Dropout(dropout)
        self.conv2 = conv(features, features, 3)
        self.has_projection = stride != 1 or in_features != features
        if self.has_projection:
            self.conv_shortcut = conv(in_features, features, 1, stride)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """Applies the block; dropout needs rngs."""
        activated = nnx.relu(self.bn1(x))
        shortcut = self.conv_shortcut(activated) if self.has_projection else x
        x = nnx.relu(self.bn2(self.conv1(activated)))
        return self.conv2(self.dropout(x, rngs=rngs)) + shortcut


class WideResNet(DenseHead):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      depth: Number of layers with weights on the longest path, d; 4 more than a multiple of 6.
      widen_factor: The widening factor k.
      dropout: Dropout rate in every block; the paper has 0 or 0.3.
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.

    Raises:
      UserError: If the depth is not 10, 16, 22 and so on, or the dropout rate is outside [0, 1).
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        depth: int,
        widen_factor: int,
        dropout: float = 0.0,
        dtype=jnp.float32,
    ):
        if depth < 10 or (depth - 4) % 6:
            raise UserError(f"depth must be 6 n + 4 with n of 1 or more, got {depth}")
        conv = partial(he_conv, dtype=dtype, rngs=rngs)
        norm = partial(BatchNorm, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.depths = ((depth - 4) // 6,) * 3
        self.conv_stem = conv(3, 16, 3)
        blocks = []
        for in_features, features, stride in block_sizes(self.depths, 16, 16 * widen_factor):
            blocks.append(WideBlock(in_features, features, stride, dropout, conv, norm))
        self.blocks = nnx.List(blocks)
        self.bn_out = norm(features)
        self.dense = Linear(features, num_classes, kernel_init=torch_init, rngs=rngs)

    def features(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns the features [B, D] after the global average pool; dropout needs rngs."""
        x = self.conv_stem(images)
        for block in self.blocks:
            x = block(x, rngs)
        return jnp.mean(nnx.relu(self.bn_out(x)), axis=(1, 2))

    def groups(self) -> tuple[Paths, ...]:
        """Returns the prefixes of the head, the stages (the last one first) and the stem."""
        return stage_groups(self.depths, stem=(("conv_stem",),), end=(("bn_out",),))
