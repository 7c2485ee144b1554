"""PyramidNet with ShakeDrop: Han et al., "Deep Pyramidal Residual Networks" (2016).

| layer | output | depth 110, alpha 270 |
|---|---|---|
| conv 3x3, 16, BN | 32 x 32 x 16 | |
| stage 1: n blocks | 32 x 32 | 18 blocks of 21 to 106 |
| stage 2: n blocks, the first with stride 2 | 16 x 16 | 18 blocks of 111 to 196 |
| stage 3: n blocks, the first with stride 2 | 8 x 8 | 18 blocks of 201 to 286 |
| BN, relu, global average pool, dense classes | classes | |

The number of filters grows with every block: that of block k, counted from 1, is
round(16 + alpha k / (3 n)). A block is BN, conv 3x3, BN, relu, conv 3x3, BN; its first convolution
has the stride. Shortcuts have no parameters: an average pool 2 where the stride is 2, and zeros in
the channels that are new. The depth is 6 n + 2. With bottleneck=True, a block is BN, conv 1x1, BN,
relu, conv 3x3, BN, relu, conv 1x1 with four times as many filters, BN, and the depth is 9 n + 2.

ShakeDrop (shake_drop.py) scales the output of each block before the shortcut is added. Its rate in
block k is k / (3 n) times `shake_drop`, the rate in the last block.

With 100 classes, the defaults (basic blocks, depth 110, alpha 270) have 28,511,307 parameters, and
depth 200 with alpha 240 and bottlenecks has 26,844,952.

The paper (arXiv:1610.02915) rounds down; the authors' code rounds to the nearest. As in their code,
no convolution has a bias, kernels are He normal by fan-out, and dense weights are uniform in
+-1 / sqrt(fan-in) with zero biases. BN has the defaults of Torch: eps 1e-5 and momentum 0.1 (0.9 in
Flax). owruby/shake-drop_pytorch, the version with ShakeDrop, also has a bias in the stem.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.errors import UserError
from cifar_jax.models.layers import (
    BatchNorm,
    DenseHead,
    Linear,
    Paths,
    he_conv,
    stage_groups,
    torch_init,
)
from cifar_jax.models.shake_drop import ShakeDrop


class PyramidBlock(nnx.Module):
    """One residual block: [B, H, W, I] to [B, ceil(H / s), ceil(W / s), O], where O >= I.

    Args:
      in_features: Number of input channels, I.
      features: Number of filters of the 3x3 convolutions: O, or O / 4 in a bottleneck.
      stride: The stride s of the block.
      bottleneck: Whether the block is a bottleneck.
      rate: The rate of ShakeDrop.
      conv: A function of (in_features, features, kernel_size, stride) that returns a convolution.
      norm: A function of features that returns a BatchNorm.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        stride: int,
        bottleneck: bool,
        rate: float,
        conv,
        norm,
    ):
        if bottleneck:
            layers = [(features, 1, 1), (features, 3, stride), (4 * features, 1, 1)]
        else:
            layers = [(features, 3, stride), (features, 3, 1)]
        self.stride, self.features = stride, layers[-1][0]
        self.bn_in = norm(in_features)
        convs, norms = [], []
        for count, size, step in layers:
            convs.append(conv(in_features, count, size, step))
            norms.append(norm(count))
            in_features = count
        self.convs, self.norms = nnx.List(convs), nnx.List(norms)
        self.shake_drop = ShakeDrop(rate)

    def __call__(self, x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        """Applies the block; ShakeDrop needs rngs."""
        branch = self.bn_in(x)
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            branch = norm(conv(nnx.relu(branch) if i > 0 else branch))
        branch = self.shake_drop(branch, rngs=rngs)
        shortcut = _average_pool(x) if self.stride == 2 else x
        new = self.features - x.shape[-1]
        return branch + jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (0, new)))


class PyramidNet(DenseHead):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      depth: Number of layers with weights: 6 n + 2 or, with bottlenecks, 9 n + 2.
      alpha: Number of filters that all blocks together add to the 16 of the stem.
      bottleneck: Whether the blocks are bottlenecks.
      shake_drop: The rate of ShakeDrop in the last block; 0 for no ShakeDrop.
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.

    Raises:
      UserError: If there is no n for the depth, or the rate is outside [0, 1).
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        depth: int = 110,
        alpha: int = 270,
        bottleneck: bool = False,
        shake_drop: float = 0.5,
        dtype=jnp.float32,
    ):
        unit = 9 if bottleneck else 6
        if depth < unit + 2 or (depth - 2) % unit:
            raise UserError(f"depth must be {unit} n + 2 with n of 1 or more, got {depth}")
        conv = partial(he_conv, dtype=dtype, rngs=rngs)
        norm = partial(BatchNorm, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.depths = ((depth - 2) // unit,) * 3
        self.conv_stem = conv(3, 16, 3)
        self.bn_stem = norm(16)
        blocks, in_features, count = [], 16, sum(self.depths)
        for i in range(count):
            features = round(16 + alpha * (i + 1) / count)
            stride = 2 if i > 0 and i % self.depths[0] == 0 else 1
            rate = shake_drop * (i + 1) / count
            blocks.append(PyramidBlock(in_features, features, stride, bottleneck, rate, conv, norm))
            in_features = blocks[-1].features
        self.blocks = nnx.List(blocks)
        self.bn_out = norm(in_features)
        self.dense = Linear(in_features, num_classes, kernel_init=torch_init, rngs=rngs)

    def features(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns the features [B, D] after the global average pool; ShakeDrop needs rngs."""
        x = self.bn_stem(self.conv_stem(images))
        for block in self.blocks:
            x = block(x, rngs)
        return jnp.mean(nnx.relu(self.bn_out(x)), axis=(1, 2))

    def groups(self) -> tuple[Paths, ...]:
        """Returns the prefixes of the head, the stages (the last one first) and the stem."""
        return stage_groups(self.depths, end=(("bn_out",),))


def _average_pool(x: jax.Array) -> jax.Array:
    """Averages over windows of 2x2 pixels: [B, H, W, C] to [B, ceil(H / 2), ceil(W / 2), C].

    Windows beyond the border average the pixels inside it, as PyTorch's do with ceil_mode.
    """
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), "edge")
    return x.reshape(batch, -(-height // 2), 2, -(-width // 2), 2, channels).mean((2, 4))
