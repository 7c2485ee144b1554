"""Pre-activation ResNets: He et al., "Identity Mappings in Deep Residual Networks" (2016).

| layer | output |
|---|---|
| conv 3x3, 64 | 32 x 32 x 64 |
| stage 1: blocks of two conv 3x3, 64 | 32 x 32 x 64 |
| stage 2: blocks of two conv 3x3, 128, the first with stride 2 | 16 x 16 x 128 |
| stage 3: blocks of two conv 3x3, 256, the first with stride 2 | 8 x 8 x 256 |
| stage 4: blocks of two conv 3x3, 512, the first with stride 2 | 4 x 4 x 512 |
| BN, relu, global average pool, dense classes | classes |

BN and relu precede every convolution of a block. Where the shape changes, the shortcut is a 1x1
convolution of the block's activated input, without BN. preact_resnet18 has (2, 2, 2, 2) blocks and
11,218,340 parameters with 100 classes.

Deviations from the paper: its networks for CIFAR have three stages of 16 to 64 filters, or of
bottlenecks. Four stages of basic blocks with the filters of ResNet-18 have become customary.
Deviations from other versions of the same network: kuangliu/pytorch-cifar has no BN and relu after
the last block, which the paper has, and 1,024 parameters fewer. weiaicunzai/pytorch-cifar100 lacks
them too; it has BN and relu after the stem, biases in the convolutions, and projects a block's
input before its activation.

Conventions are torchvision's: He normal kernels by fan-out, dense weights and biases uniform in
+-1 / sqrt(fan-in), BN with eps 1e-5 and momentum 0.1 (0.9 in Flax).
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.models.layers import (
    BatchNorm,
    DenseHead,
    Paths,
    block_sizes,
    he_conv,
    stage_groups,
    torch_linear,
)


class PreActBlock(nnx.Module):
    """conv(relu(BN(conv(relu(BN(x)))))) + shortcut: [B, H, W, I] to [B, H / s, W / s, O].

    Args:
      in_features: Number of input channels, I.
      features: Number of output channels, O.
      stride: The stride s of the first convolution.
      conv: A function of (in_features, features, kernel_size, stride=1) that returns a
        convolution.
      norm: A function of features that returns a BatchNorm.
    """

    def __init__(self, in_features: int, features: int, stride: int, conv, norm):
        self.bn1 = norm(in_features)
        self.conv1 = conv(in_features, features, 3, stride)
        self.bn2 = norm(features)
        self.conv2 = conv(features, features, 3)
        self.has_projection = stride != 1 or in_features != features
        if self.has_projection:
            self.conv_shortcut = conv(in_features, features, 1, stride)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block."""
        activated = nnx.relu(self.bn1(x))
        shortcut = self.conv_shortcut(activated) if self.has_projection else x
        x = nnx.relu(self.bn2(self.conv1(activated)))
        return self.conv2(x) + shortcut


class PreActResNet(DenseHead):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      depths: Number of blocks per stage.
      width: Number of filters of the first stage; it doubles with each stage.
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.
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
        conv = partial(he_conv, dtype=dtype, rngs=rngs)
        norm = partial(BatchNorm, momentum=0.9, epsilon=1e-5, rngs=rngs)
        self.depths = tuple(depths)
        self.conv_stem = conv(3, width, 3)
        blocks = []
        for in_features, features, stride in block_sizes(depths, width, width):
            blocks.append(PreActBlock(in_features, features, stride, conv, norm))
        self.blocks = nnx.List(blocks)
        self.bn_out = norm(features)
        self.dense = torch_linear(features, num_classes, rngs=rngs)

    def features(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns the features [B, D] after the global average pool; rngs is unused."""
        del rngs
        x = self.conv_stem(images)
        for block in self.blocks:
            x = block(x)
        return jnp.mean(nnx.relu(self.bn_out(x)), axis=(1, 2))

    def groups(self) -> tuple[Paths, ...]:
        """Returns the prefixes of the head, the stages (the last one first) and the stem."""
        return stage_groups(self.depths, stem=(("conv_stem",),), end=(("bn_out",),))
