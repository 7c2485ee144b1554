"""cnn2: the two-convolution network from the write-up on coarse labels ("LSC Project", part 1).

| layer | output |
|---|---|
| conv 3x3, 32, same, relu | 32 x 32 x 32 |
| max-pool 2 (dropout 0.25) | 16 x 16 x 32 |
| conv 3x3, 64, same, relu | 16 x 16 x 64 |
| flatten (dropout 0.25) | 16,384 |
| dense 128, relu (dropout 0.5) | 128 |
| dense classes | classes |

2,119,252 parameters with 20 classes. Keras's initialization: Glorot uniform kernels, zero biases.
The softmax is part of the loss. The dropout layers are from the write-up's part 2 and are off by
default.
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


class CNN2(nnx.Module):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      filters: Number of filters of each convolution.
      dense_units: Number of units of the hidden dense layer.
      dropout: Dropout rates after the pool, after flatten and after the dense layer; a single
        number applies to all.
      dtype: Dtype of the computation; parameters and logits are float32.
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        filters: Sequence[int] = (32, 64),
        dense_units: int = 128,
        dropout: float | Sequence[float] = (0.0, 0.0, 0.0),
        dtype=jnp.float32,
    ):
        init = dict(kernel_init=keras_init, dtype=dtype, rngs=rngs)
        filters = per_layer(filters, 2, "filters")
        rates = per_layer(dropout, 3, "dropout")
        self.conv1 = Conv(3, filters[0], (3, 3), **init)
        self.conv2 = Conv(filters[0], filters[1], (3, 3), **init)
        self.dense1 = Linear(16 * 16 * filters[1], dense_units, **init)
        self.dense2 = Linear(dense_units, num_classes, **init | {"dtype": jnp.float32})
        self.dropout1, self.dropout2, self.dropout3 = (Dropout(rate) for rate in rates)

    def __call__(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits [B, num_classes] for images [B, 32, 32, 3]; dropout needs rngs."""
        x = max_pool(nnx.relu(self.conv1(images)), 2)
        x = self.dropout1(x, rngs=rngs)
        x = nnx.relu(self.conv2(x))
        x = self.dropout2(flatten(x), rngs=rngs)
        x = self.dropout3(nnx.relu(self.dense1(x)), rngs=rngs)
        return self.dense2(x)
