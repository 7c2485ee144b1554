"""Xception (Chollet, 2017, arXiv:1610.02357), as in keras.applications.Xception.

| layer | output at 299 x 299 | at 71 | at 32 |
|---|---|---|---|
| conv 3x3 / 2, 32, valid, BN, relu | 149 x 149 x 32 | 35 | 15 |
| conv 3x3, 64, valid, BN, relu | 147 x 147 x 64 | 33 | 13 |
| entry flow: block of two separable convolutions, 128, / 2 | 74 x 74 x 128 | 17 | 7 |
| block of two, 256, / 2 | 37 x 37 x 256 | 9 | 4 |
| block of two, 728, / 2 | 19 x 19 x 728 | 5 | 2 |
| middle flow: 8 blocks of three, 728 | 19 x 19 x 728 | 5 | 2 |
| exit flow: block of two, 728 and 1024, / 2 | 10 x 10 x 1024 | 3 | 1 |
| two separable convolutions, 1536, 2048, BN, relu after each | 10 x 10 x 2048 | 3 | 1 |
| global average pool, dense classes | classes | | |

A separable convolution is a depthwise convolution 3x3 followed by a convolution 1x1, without biases
and without an activation in between. A block is a sequence of relu, separable convolution and BN,
without the first relu in the first block of the entry flow; one with / 2 then takes a max-pool 3x3
with stride 2. Its shortcut is the identity or, with / 2, a convolution 1x1 with stride 2 and BN.

With 100 classes the network has 21,011,852 parameters. Keras reports 20,861,480 for the body, which
includes the 54,528 running means and variances. As in Keras, BN has eps 1e-3 and momentum 0.99, and
kernels are Glorot uniform. Keras refuses images below 71 pixels; here 7 are enough.
"""

import itertools
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.errors import UserError
from cifar_jax.models.layers import BatchNorm, Conv, DenseHead, Linear, Paths, keras_init
from cifar_jax.ops.pooling import max_pool


class SeparableConv(nnx.Module):
    """A depthwise 3x3 convolution, then a 1x1 convolution: [B, H, W, I] to [B, H, W, O]."""

    def __init__(self, in_features: int, features: int, conv):
        self.depthwise = conv(in_features, in_features, 3, feature_group_count=in_features)
        self.pointwise = conv(in_features, features, 1)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the two convolutions."""
        return self.pointwise(self.depthwise(x))


class Block(nnx.Module):
    """Relu, separable convolution and BN, repeated, plus a shortcut.

    Args:
      in_features: Number of input channels.
      features: Number of output channels of each separable convolution.
      conv: A function of (in_features, features, kernel_size) and options that returns a
        convolution.
      norm: A function of features that returns a BatchNorm.
      starts_with_relu: Whether a relu precedes the first convolution too.
      shortcut: "identity", "projection", which halves height and width, or "none".
    """

    def __init__(
        self,
        in_features: int,
        features: Sequence[int],
        conv,
        norm,
        *,
        starts_with_relu: bool = True,
        shortcut: str = "identity",
    ):
        self.starts_with_relu, self.shortcut = starts_with_relu, shortcut
        inputs = (in_features, *features[:-1])
        self.convs = nnx.List(
            [SeparableConv(i, o, conv) for i, o in zip(inputs, features, strict=True)]
        )
        self.norms = nnx.List([norm(count) for count in features])
        if shortcut == "projection":
            self.conv_shortcut = conv(in_features, features[-1], 1, strides=2)
            self.bn_shortcut = norm(features[-1])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, I] to [B, H, W, O], or to half the height and width, rounded up."""
        shortcut = x
        if self.shortcut == "projection":
            shortcut = self.bn_shortcut(self.conv_shortcut(x))
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            if i > 0 or self.starts_with_relu:
                x = nnx.relu(x)
            x = norm(conv(x))
        if self.shortcut == "projection":
            x = max_pool(x, 3, stride=2, padding="SAME")
        return x if self.shortcut == "none" else x + shortcut


class Xception(DenseHead):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      widths: Number of channels of the two convolutions of the stem, the three blocks of the entry
        flow, the first block of the exit flow, and the two separable convolutions after it.
      depth: Number of blocks of the middle flow.
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.

    Raises:
      UserError: If there are not eight widths.
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        widths: Sequence[int] = (32, 64, 128, 256, 728, 1024, 1536, 2048),
        depth: int = 8,
        dtype=jnp.float32,
    ):
        if len(widths) != 8:
            raise UserError(f"widths must be 8 numbers of channels, got {len(widths)}: {widths}")
        norm = partial(BatchNorm, momentum=0.99, epsilon=1e-3, rngs=rngs)

        def conv(in_features, features, size, **options):
            return Conv(
                in_features, features, (size, size),
                use_bias=False, kernel_init=keras_init, dtype=dtype, rngs=rngs, **options,
            )  # fmt: skip

        block = partial(Block, conv=conv, norm=norm)
        self.conv1 = conv(3, widths[0], 3, strides=2, padding="VALID")
        self.bn1 = norm(widths[0])
        self.conv2 = conv(widths[0], widths[1], 3, padding="VALID")
        self.bn2 = norm(widths[1])
        entry = [
            block(before, (width, width), starts_with_relu=i > 0, shortcut="projection")
            for i, (before, width) in enumerate(itertools.pairwise(widths[1:5]))
        ]
        width = widths[4]
        middle = [block(width, (width,) * 3) for _ in range(depth)]
        exit_flow = [
            block(width, (width, widths[5]), shortcut="projection"),
            block(widths[5], widths[6:], starts_with_relu=False, shortcut="none"),
        ]
        self.blocks = nnx.List([*entry, *middle, *exit_flow])
        self.dense = Linear(widths[7], num_classes, kernel_init=keras_init, rngs=rngs)

    def features(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns the features [B, D] after the global average pool; rngs is unused."""
        del rngs
        x = nnx.relu(self.bn1(self.conv1(images)))
        x = nnx.relu(self.bn2(self.conv2(x)))
        for block in self.blocks:
            x = block(x)
        return jnp.mean(nnx.relu(x), axis=(1, 2))

    def groups(self) -> tuple[Paths, ...]:
        """Returns the prefixes of the head, and of the exit, middle and entry flows."""
        blocks = [("blocks", i) for i in range(len(self.blocks))]
        entry, middle, exit_flow = blocks[:3], blocks[3:-2], blocks[-2:]
        stem = (("conv1",), ("bn1",), ("conv2",), ("bn2",))
        return (self.head_paths(), tuple(exit_flow), tuple(middle), (*stem, *entry))
