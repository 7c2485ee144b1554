"""airbench: the networks of KellerJordan/cifar10-airbench, which train on CIFAR-10 in seconds.

| layer | output |
|---|---|
| whitening conv 2x2, 24, valid, gelu | 31 x 31 x 24 |
| group 1: conv 3x3, max-pool 2, BN, gelu, conv 3x3, BN, gelu | 15 x 15 x 64 |
| group 2: the same | 7 x 7 x 256 |
| group 3: the same | 3 x 3 x 256 |
| max-pool 3, flatten | 256 |
| dense classes, scaled | classes |

| script | options | parameters with 10 classes |
|---|---|---|
| airbench94_muon | the defaults | 1,971,640 |
| airbench94 | logit_scale=1 / 9, init="sgd" | 1,971,640 |
| airbench95 | as airbench94, and widths=(128, 384, 384) | 4,604,728 |
| airbench96 | as airbench94, and widths=(128, 384, 512), depth=3, bn_momentum=0.9 | 9,915,704 |

With 100 classes, the defaults have 1,994,680 parameters. They include the 288 of the whitening
kernel, which is computed from training images and never trained: see whitening.py. With depth=3, a
group is residual: x = gelu(BN(max-pool(conv))), then gelu(x + BN(conv(gelu(BN(conv(x)))))). The
smallest network takes 118 million multiplications per image, the largest 452 million.

The other convolutions have "same" padding, no bias, and partial identity kernels: see dirac.py. BN
has no scale, eps 1e-12 and momentum 0.4 (0.6 in Flax), 0.1 in airbench96. gelu is exact, with erf.
init="muon" draws the head from a uniform distribution and rescales it to a standard deviation of 1,
and gives the stem's bias PyTorch's default initialization; init="sgd" gives the head PyTorch's
default initialization and sets the stem's bias to 0. The Muon script divides the logits by the
number of features, hence logit_scale=1 / 256.

Deviations: BN keeps the biased running variance, PyTorch the unbiased one. The convolutions compute
in bfloat16 or float32, the scripts in float16 with float16 weights.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.errors import UserError, unknown
from cifar_jax.models.dirac import dirac_init
from cifar_jax.models.layers import (
    BatchNorm,
    Conv,
    Linear,
    flatten,
    gelu,
    torch_bias_init,
    torch_init,
)
from cifar_jax.models.whitening import WhitenedNetwork, whitening_conv
from cifar_jax.ops.pooling import max_pool


def unit_std_init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Draws a uniform kernel and rescales it to a standard deviation of exactly 1."""
    kernel = jax.random.uniform(key, shape, dtype, -1, 1)
    return kernel / jnp.std(kernel, ddof=1)


# {value of init: (initializer of the head's kernel, initializer of the stem's bias)}.
INITS = {
    "muon": (unit_std_init, torch_bias_init(2 * 2 * 3)),
    "sgd": (torch_init, nnx.initializers.zeros),
}


class ConvGroup(nnx.Module):
    """Two or three convolutions: [B, H, W, I] to [B, H // 2, W // 2, O].

    Args:
      in_features: Number of input channels, I.
      features: Number of output channels, O.
      depth: Number of convolutions; with 3, the last two have a shortcut.
      conv: A function of (in_features, features) that returns a convolution.
      norm: A function of features that returns a BatchNorm.
    """

    def __init__(self, in_features: int, features: int, depth: int, conv, norm):
        self.depth = depth
        self.conv1 = conv(in_features, features)
        self.bn1 = norm(features)
        self.conv2 = conv(features, features)
        self.bn2 = norm(features)
        if depth == 3:
            self.conv3 = conv(features, features)
            self.bn3 = norm(features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the group."""
        shortcut = gelu(self.bn1(max_pool(self.conv1(x), 2)))
        x = gelu(self.bn2(self.conv2(shortcut)))
        if self.depth == 3:
            x = gelu(shortcut + self.bn3(self.conv3(x)))
        return x


class Airbench(WhitenedNetwork):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the parameters.
      widths: Number of filters of the three groups.
      depth: Number of convolutions per group, 2 or 3.
      bn_momentum: Decay of BN's running statistics per step.
      logit_scale: Number that the logits are multiplied by.
      init: Initialization of the head and of the stem's bias, "muon" or "sgd".
      image_size: Height and width of the images in pixels, at least 25.
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.

    Raises:
      UserError: If the number of widths, the depth, the momentum or the initialization is invalid,
        or the images are too small.
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        widths: Sequence[int] = (64, 256, 256),
        depth: int = 2,
        bn_momentum: float = 0.6,
        logit_scale: float = 1 / 256,
        init: str = "muon",
        image_size: int = 32,
        dtype=jnp.float32,
    ):
        if len(widths) != 3:
            raise UserError(f"widths must be three numbers, one per group, got {widths}")
        if depth not in (2, 3):
            raise UserError(f"depth must be 2 or 3, got {depth}")
        if not 0 <= bn_momentum < 1:
            raise UserError(f"bn_momentum must be in [0, 1), got {bn_momentum}")
        if init not in INITS:
            raise unknown("init", init, INITS)
        head_init, bias_init = INITS[init]

        def conv(in_features, features):
            return Conv(
                in_features, features, (3, 3), use_bias=False, kernel_init=dirac_init,
                dtype=dtype, rngs=rngs,
            )  # fmt: skip

        norm = partial(BatchNorm, momentum=bn_momentum, epsilon=1e-12, use_scale=False, rngs=rngs)
        self.logit_scale = logit_scale
        self.conv_stem = whitening_conv(bias_init=bias_init, dtype=dtype, rngs=rngs)
        blocks, in_features = [], 24
        for features in widths:
            blocks.append(ConvGroup(in_features, features, depth, conv, norm))
            in_features = features
        self.blocks = nnx.List(blocks)
        num_features = _size_of_output(image_size) ** 2 * in_features
        self.dense = Linear(
            num_features, num_classes, use_bias=False, kernel_init=head_init, rngs=rngs
        )

    def features(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns the flattened features [B, D] after the last max-pool; rngs is unused."""
        del rngs
        _size_of_output(images.shape[1])
        x = gelu(self.conv_stem(images))
        for block in self.blocks:
            x = block(x)
        return flatten(max_pool(x, 3))


def _size_of_output(image_size: int) -> int:
    """Returns the height of the last max-pool's output in pixels.

    Raises:
      UserError: If no pixel is left.
    """
    size = (image_size - 1) // 8 // 3
    if size < 1:
        raise UserError(f"airbench takes images of at least 25 pixels, got {image_size}")
    return size
