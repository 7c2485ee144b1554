"""cnn_deep: the network of eight convolutions from the write-up on CIFAR-10 in PyTorch.

| layer | output |
|---|---|
| conv 3x3, 20, BN, relu | 30 x 30 x 20 |
| conv 3x3, 24, relu, conv 3x3, 32, relu, conv 3x3, 40, relu | 24 x 24 x 40 |
| max-pool 2 | 12 x 12 x 40 |
| conv 3x3, 48, BN, relu | 10 x 10 x 48 |
| conv 3x3, 56, relu, conv 3x3, 64, relu, conv 3x3, 72, relu | 4 x 4 x 72 |
| flatten, dense 256, BN, relu, dropout 0.3 | 256 |
| dense 64, relu, dense 32, relu, dropout 0.1, dense 16, relu | 16 |
| dense classes | classes |

453,242 parameters with 10 classes. The convolutions have valid padding; BN has no scale and no
bias, eps 1e-5 and momentum 0.1 (0.9 in flax). PyTorch's initialization: kernels and biases uniform
in +-1 / sqrt(fan-in). The write-up lists only the layers; the relus are placed as usual.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.models.layers import (
    BatchNorm,
    Dropout,
    flatten,
    per_layer,
    torch_conv,
    torch_linear,
)
from cifar_jax.ops.pooling import max_pool


class CNNDeep(nnx.Module):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes kernels and biases.
      dropout: Dropout rates after the first and the third dense layer; a single number applies to
        both.
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        dropout: float | Sequence[float] = (0.3, 0.1),
        dtype=jnp.float32,
    ):
        conv = partial(torch_conv, kernel_size=3, dtype=dtype, rngs=rngs)
        dense = partial(torch_linear, dtype=dtype, rngs=rngs)
        norm = partial(
            BatchNorm, momentum=0.9, epsilon=1e-5, use_scale=False, use_bias=False, rngs=rngs
        )
        self.conv1 = conv(3, 20)
        self.bn_conv1 = norm(20)
        self.conv2 = conv(20, 24)
        self.conv3 = conv(24, 32)
        self.conv4 = conv(32, 40)
        self.conv5 = conv(40, 48)
        self.bn_conv5 = norm(48)
        self.conv6 = conv(48, 56)
        self.conv7 = conv(56, 64)
        self.conv8 = conv(64, 72)
        self.dense1 = dense(4 * 4 * 72, 256)
        self.bn_dense1 = norm(256)
        self.dense2 = dense(256, 64)
        self.dense3 = dense(64, 32)
        self.dense4 = dense(32, 16)
        self.dense5 = torch_linear(16, num_classes, rngs=rngs)
        self.dropout1, self.dropout2 = map(Dropout, per_layer(dropout, 2, "dropout"))

    def __call__(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits [B, num_classes] for images [B, 32, 32, 3]; dropout needs rngs."""
        x = nnx.relu(self.bn_conv1(self.conv1(images)))
        for conv in (self.conv2, self.conv3, self.conv4):
            x = nnx.relu(conv(x))
        x = nnx.relu(self.bn_conv5(self.conv5(max_pool(x, 2))))
        for conv in (self.conv6, self.conv7, self.conv8):
            x = nnx.relu(conv(x))
        x = self.dropout1(nnx.relu(self.bn_dense1(self.dense1(flatten(x)))), rngs=rngs)
        x = nnx.relu(self.dense3(nnx.relu(self.dense2(x))))
        x = nnx.relu(self.dense4(self.dropout2(x, rngs=rngs)))
        return self.dense5(x)
