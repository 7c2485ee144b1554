"""ResNets for 32x32 images: He et al., "Deep Residual Learning for Image Recognition" (2015).

| layer | output |
|---|---|
| conv 3x3, 64, BN, relu | 32 x 32 x 64 |
| stage 1: blocks of two conv 3x3, 64 | 32 x 32 x 64 |
| stage 2: blocks of two conv 3x3, 128, the first with stride 2 | 16 x 16 x 128 |
| stage 3: blocks of two conv 3x3, 256, the first with stride 2 | 8 x 8 x 256 |
| stage 4: blocks of two conv 3x3, 512, the first with stride 2 | 4 x 4 x 512 |
| global average pool, dense classes | classes |

resnet18 has (2, 2, 2, 2) blocks, resnet34 (3, 4, 6, 3): 11,220,132 and 21,328,292 parameters with
100 classes. Deviations from the paper, all of them customary for CIFAR: the stem is one 3x3
convolution of stride 1 where ImageNet's is 7x7 of stride 2 and a max-pool, and shortcuts that
change shape are 1x1 convolutions with BN (the paper's option B). Initialisation, BN and padding
are torchvision's: He normal by fan-out, dense weights and biases uniform in +-1 / sqrt(fan-in),
eps 1e-5, momentum 0.1 (0.9 here), one pixel on every side.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.models.layers import (
    BatchNorm,
    Conv,
    ExampleRngs,
    he_fan_out_init,
    torch_bias_init,
    torch_init,
)


class BasicBlock(nnx.Module):
    """relu(BN(conv(relu(BN(conv(x))))) + shortcut(x)): [B, H, W, I] to [B, H / s, W / s, O]."""

    def __init__(self, in_features: int, features: int, stride: int, rngs: nnx.Rngs, dtype):
        conv = dict(use_bias=False, kernel_init=he_fan_out_init, dtype=dtype, rngs=rngs)
        norm = dict(momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.conv1 = Conv(in_features, features, (3, 3), stride, padding=1, **conv)
        self.bn1 = BatchNorm(features, **norm)
        self.conv2 = Conv(features, features, (3, 3), padding=1, **conv)
        self.bn2 = BatchNorm(features, **norm)
        self.has_projection = stride != 1 or in_features != features
        if self.has_projection:
            self.conv_shortcut = Conv(in_features, features, (1, 1), stride, padding=0, **conv)
            self.bn_shortcut = BatchNorm(features, **norm)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the block's output, rectified."""
        shortcut = self.bn_shortcut(self.conv_shortcut(x)) if self.has_projection else x
        x = nnx.relu(self.bn1(self.conv1(x)))
        return nnx.relu(self.bn2(self.conv2(x)) + shortcut)


class ResNet(nnx.Module):
    """See the module's docstring.

    Args:
      num_classes: number of logits.
      rngs: its `params` stream initialises the kernels.
      depths: blocks of each stage.
      width: filters of the first stage; they double from stage to stage.
      dtype: of the computation; parameters, statistics, BN and logits are float32.
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        depths: Sequence[int],
        width: int = 64,
        dtype=jnp.float32,
    ):
        self.conv_stem = Conv(
            3, width, (3, 3), padding=1, use_bias=False, kernel_init=he_fan_out_init,
            dtype=dtype, rngs=rngs,
        )  # fmt: skip
        self.bn_stem = BatchNorm(width, momentum=0.9, epsilon=1e-5, rngs=rngs)
        blocks, in_features = [], width
        for stage, depth in enumerate(depths):
            features = width * 2**stage
            for i in range(depth):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(BasicBlock(in_features, features, stride, rngs, dtype))
                in_features = features
        self.blocks = nnx.List(blocks)
        self.dense = nnx.Linear(
            in_features, num_classes, kernel_init=torch_init,
            bias_init=torch_bias_init(in_features), rngs=rngs,
        )  # fmt: skip

    def __call__(self, images: jax.Array, rngs: ExampleRngs | None = None) -> jax.Array:
        """Returns logits [B, num_classes] of images [B, 32, 32, 3]; rngs is not used."""
        del rngs
        x = nnx.relu(self.bn_stem(self.conv_stem(images)))
        for block in self.blocks:
            x = block(x)
        return self.dense(jnp.mean(x, axis=(1, 2)))
