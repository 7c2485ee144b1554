"""SE-ResNets: Hu et al., "Squeeze-and-Excitation Networks" (2017, arXiv:1709.01507).

| layer | output |
|---|---|
| conv 3x3, 64, BN, relu | 32 x 32 x 64 |
| stage 1: SE blocks of two conv 3x3, 64 | 32 x 32 x 64 |
| stage 2: SE blocks of two conv 3x3, 128, the first with stride 2 | 16 x 16 x 128 |
| stage 3: SE blocks of two conv 3x3, 256, the first with stride 2 | 8 x 8 x 256 |
| stage 4: SE blocks of two conv 3x3, 512, the first with stride 2 | 4 x 4 x 512 |
| global average pool, dense classes | classes |

An SE block is a block of ResNet-18 (resnet.py) whose branch, before the shortcut is added, is
multiplied channel by channel by a gate between 0 and 1: global average pool, dense C / 16, relu,
dense C, sigmoid. senet18 has (2, 2, 2, 2) blocks and 11,309,212 parameters with 100 classes.

Deviations from the paper: the stem is one 3x3 convolution with stride 1, as is customary for CIFAR;
the paper's own networks for CIFAR are different. weiaicunzai/pytorch-cifar100, whose README states
11.4M, has biases in the convolutions, 4,800 parameters more, and another relu between the
second BN and the gate.

Conventions are torchvision's: He normal kernels by fan-out, dense weights and biases uniform in
+-1 / sqrt(fan-in), BN with eps 1e-5 and momentum 0.1 (0.9 in Flax).
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.errors import UserError
from cifar_jax.models.layers import (
    BatchNorm,
    DenseHead,
    Paths,
    block_sizes,
    he_conv,
    stage_groups,
    torch_linear,
)


class Gate(nnx.Module):
    """Squeeze and excitation: multiplies each channel of [B, H, W, C] by a number in (0, 1).

    Args:
      features: Number of channels C.
      reduction: Ratio of C to the number of units of the first dense layer.
      rngs: The `params` stream initializes the weights.
      dtype: Dtype of the computation.
    """

    def __init__(self, features: int, reduction: int, rngs: nnx.Rngs, dtype):
        options = dict(dtype=dtype, rngs=rngs)
        self.squeeze = torch_linear(features, features // reduction, **options)
        self.excite = torch_linear(features // reduction, features, **options)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the gate."""
        squeezed = nnx.relu(self.squeeze(jnp.mean(x, axis=(1, 2))))
        return x * nnx.sigmoid(self.excite(squeezed))[:, None, None, :]


class SEBlock(nnx.Module):
    """relu(gate(BN(conv(relu(BN(conv(x)))))) + shortcut(x)): [B, H, W, I] to [B, H / s, W / s, O].

    Args:
      in_features: Number of input channels, I.
      features: Number of output channels, O.
      stride: The stride s of the first convolution.
      conv: A function of (in_features, features, kernel_size, stride=1) that returns a
        convolution.
      norm: A function of features that returns a BatchNorm.
      gate: A function of features that returns a Gate.
    """

    def __init__(self, in_features: int, features: int, stride: int, conv, norm, gate):
        self.conv1 = conv(in_features, features, 3, stride)
        self.bn1 = norm(features)
        self.conv2 = conv(features, features, 3)
        self.bn2 = norm(features)
        self.gate = gate(features)
        self.has_projection = stride != 1 or in_features != features
        if self.has_projection:
            self.conv_shortcut = conv(in_features, features, 1, stride)
            self.bn_shortcut = norm(features)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block."""
        shortcut = self.bn_shortcut(self.conv_shortcut(x)) if self.has_projection else x
        x = nnx.relu(self.bn1(self.conv1(x)))
        return nnx.relu(self.gate(self.bn2(self.conv2(x))) + shortcut)


class SEResNet(DenseHead):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      depths: Number of blocks per stage.
      width: Number of filters of the first stage; it doubles with each stage.
      reduction: Ratio of a block's channels to the units of its gate's first dense layer.
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.

    Raises:
      UserError: If the reduction exceeds the width.
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        depths: Sequence[int],
        width: int = 64,
        reduction: int = 16,
        dtype=jnp.float32,
    ):
        if reduction > width:
            raise UserError(f"reduction must be at most the width, {width}, got {reduction}")
        conv = partial(he_conv, dtype=dtype, rngs=rngs)
        norm = partial(BatchNorm, momentum=0.9, epsilon=1e-5, rngs=rngs)
        gate = partial(Gate, reduction=reduction, rngs=rngs, dtype=dtype)
        self.depths = tuple(depths)
        self.conv_stem = conv(3, width, 3)
        self.bn_stem = norm(width)
        blocks = []
        for in_features, features, stride in block_sizes(depths, width, width):
            blocks.append(SEBlock(in_features, features, stride, conv, norm, gate))
        self.blocks = nnx.List(blocks)
        self.dense = torch_linear(features, num_classes, rngs=rngs)

    def features(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns the features [B, D] after the global average pool; rngs is unused."""
        del rngs
        x = nnx.relu(self.bn_stem(self.conv_stem(images)))
        for block in self.blocks:
            x = block(x)
        return jnp.mean(x, axis=(1, 2))

    def groups(self) -> tuple[Paths, ...]:
        """Returns the prefixes of the head, the stages (the last one first) and the stem."""
        return stage_groups(self.depths)
