"""speed_resnet: a residual network of a CIFAR-100 speedrun.

It is the network of the submission NAVIER-STOKED to AIDDA-Institute/CIFAR-100-speedrun, which
reports an accuracy of 75.19% after 8.75 epochs, which take 3.5 s on an A100.

| layer | output |
|---|---|
| whitening conv 2x2, 24, valid, silu | 31 x 31 x 24 |
| group 1: conv 3x3, 64, max-pool 2, BN, silu; residual conv 1x1, 64, conv 1x1, 64 | 15 x 15 x 64 |
| group 2: conv 3x3, 256, ...; residual conv 3x3, 192, conv 1x1, 256 | 7 x 7 x 256 |
| group 3: conv 2x2, 768, ...; residual conv 3x3, 512, conv 3x3, 768 | 3 x 3 x 768 |
| global max-pool + global average pool | 768 |
| dense classes, scaled | classes |

A residual pair is x + silu(BN(conv(silu(BN(conv(x)))))), without an activation after the sum. With
100 classes the network has 8,608,312 parameters, including the 288 of the whitening kernel, which
is computed from training images and never trained: see whitening.py. An image takes 175 million
multiplications.

The other convolutions have "same" padding, no bias, and partial identity kernels: see dirac.py. As
in PyTorch, the 2x2 convolution is padded at the bottom and the right, and its identity is at the
bottom right tap, which shifts the image by a pixel. Group 3's max-pool drops the padded row and
column unless its input has an even size, as with images of 20 pixels. BN has PyTorch's eps 1e-5 and
momentum 0.1 (0.9 in Flax). The head has no bias.

The parameters do not depend on the size of the images, so training can begin with smaller ones.
Images of 24 and 20 pixels leave 2 x 2 pixels after group 3.

Deviations: BN keeps the biased running variance, PyTorch the unbiased one. The submission computes
the whitening kernel in float64; it is float32 here.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.errors import UserError
from cifar_jax.models.dirac import dirac_init
from cifar_jax.models.layers import BatchNorm, Conv, Linear, torch_init
from cifar_jax.models.whitening import WhitenedNetwork, whitening_conv
from cifar_jax.ops.pooling import global_max_pool, max_pool

# Kernel sizes of the three convolutions of each group.
KERNELS = ((3, 1, 1), (3, 3, 1), (2, 3, 3))


class ResidualGroup(nnx.Module):
    """A convolution with max-pooling and a residual pair: [B, H, W, I] to [B, H // 2, W // 2, O].

    Args:
      in_features: Number of input channels, I.
      features: Number of output channels, O.
      mid_features: Number of channels between the two convolutions of the pair.
      kernel_sizes: Kernel sizes of the three convolutions.
      conv: A function of (in_features, features, kernel_size) that returns a convolution.
      norm: A function of features that returns a BatchNorm.
    """

    def __init__(
        self,
        in_features: int,
        features: int,
        mid_features: int,
        kernel_sizes: Sequence[int],
        *,
        conv,
        norm,
    ):
        size1, size2, size3 = kernel_sizes
        self.conv1 = conv(in_features, features, size1)
        self.bn1 = norm(features)
        self.conv2 = conv(features, mid_features, size2)
        self.bn2 = norm(mid_features)
        self.conv3 = conv(mid_features, features, size3)
        self.bn3 = norm(features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the group."""
        x = nnx.silu(self.bn1(max_pool(self.conv1(x), 2)))
        residual = nnx.silu(self.bn2(self.conv2(x)))
        return x + nnx.silu(self.bn3(self.conv3(residual)))


class SpeedResNet(WhitenedNetwork):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the parameters.
      widths: Number of filters of the three groups.
      mid_widths: Number of channels inside each group's residual pair.
      logit_scale: Number that the logits are multiplied by.
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.

    Raises:
      UserError: If the number of widths is not 3.
    """

    centered = True

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        widths: Sequence[int] = (64, 256, 768),
        mid_widths: Sequence[int] = (64, 192, 512),
        logit_scale: float = 1.25 / 9,
        dtype=jnp.float32,
    ):
        for name, values in (("widths", widths), ("mid_widths", mid_widths)):
            if len(values) != 3:
                raise UserError(f"{name} must be three numbers, one per group, got {values}")

        def conv(in_features, features, size):
            return Conv(
                in_features, features, (size, size), use_bias=False, kernel_init=dirac_init,
                dtype=dtype, rngs=rngs,
            )  # fmt: skip

        norm = partial(BatchNorm, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.logit_scale = logit_scale
        self.conv_stem = whitening_conv(bias_init=nnx.initializers.zeros, dtype=dtype, rngs=rngs)
        blocks, in_features = [], 24
        for features, mid_features, sizes in zip(widths, mid_widths, KERNELS, strict=True):
            blocks.append(
                ResidualGroup(in_features, features, mid_features, sizes, conv=conv, norm=norm)
            )
            in_features = features
        self.blocks = nnx.List(blocks)
        self.dense = Linear(
            in_features, num_classes, use_bias=False, kernel_init=torch_init, rngs=rngs
        )

    def features(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns the sum [B, D] of the global max-pool and average pool; rngs is unused.

        Raises:
          UserError: If the images have fewer than 9 pixels, which leaves none after the pools.
        """
        del rngs
        if images.shape[1] < 9:
            raise UserError(
                f"speed_resnet takes images of at least 9 pixels, got {images.shape[1]}"
            )
        x = nnx.silu(self.conv_stem(images))
        for block in self.blocks:
            x = block(x)
        return global_max_pool(x) + jnp.mean(x, axis=(1, 2))
