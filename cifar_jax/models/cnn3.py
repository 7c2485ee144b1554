"""cnn3: the three-convolution network from the assignment write-up on CIFAR-100.

| layer | output |
|---|---|
| conv 3x3, 32, same, relu, max-pool 2, relu | 16 x 16 x 32 |
| conv 3x3, 64, same, relu, max-pool 2, relu, dropout 0.1 | 8 x 8 x 64 |
| conv 3x3, 128, same, relu, max-pool 2, dropout 0.25 | 4 x 4 x 128 |
| flatten, dense 512, relu, dropout 0.5 | 512 |
| dense classes | classes |

1,193,636 parameters with 100 classes. Keras's initialization: Glorot uniform kernels, zero biases.
Deviation: the relus after the pools are omitted. They would have no effect, because the inputs of
the pools are already rectified.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.models.layers import (
    Conv,
    Dropout,
    Linear,
    flatten,
    keras_init,
    per_layer,
)
from cifar_jax.ops.pooling import max_pool


class CNN3(nnx.Module):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      dropout: Dropout rates after the second pool, after the third and after the dense layer; a
        single number applies to all.
      dtype: Dtype of the computation; parameters and logits are float32.
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        dropout: float | Sequence[float] = (0.1, 0.25, 0.5),
        dtype=jnp.float32,
    ):
        init = dict(kernel_init=keras_init, dtype=dtype, rngs=rngs)
        rates = per_layer(dropout, 3, "dropout")
        self.conv1 = Conv(3, 32, (3, 3), **init)
        self.conv2 = Conv(32, 64, (3, 3), **init)
        self.conv3 = Conv(64, 128, (3, 3), **init)
        self.dense1 = Linear(4 * 4 * 128, 512, **init)
        self.dense2 = Linear(512, num_classes, **init | {"dtype": jnp.float32})
        self.dropout1, self.dropout2, self.dropout3 = (Dropout(rate) for rate in rates)

    def __call__(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits [B, num_classes] for images [B, 32, 32, 3]; dropout needs rngs."""
        x = max_pool(nnx.relu(self.conv1(images)), 2)
        x = max_pool(nnx.relu(self.conv2(x)), 2)
        x = self.dropout1(x, rngs=rngs)
        x = max_pool(nnx.relu(self.conv3(x)), 2)
        x = flatten(self.dropout2(x, rngs=rngs))
        x = self.dropout3(nnx.relu(self.dense1(x)), rngs=rngs)
        return self.dense2(x)
