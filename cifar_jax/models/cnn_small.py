"""cnn_small: the network of two convolutions from the write-up on CIFAR-10 in PyTorch.

| layer | output |
|---|---|
| conv 5x5, 8, valid, relu, max-pool 2 | 14 x 14 x 8 |
| conv 3x3, 16, valid, relu, average-pool 2 | 6 x 6 x 16 |
| flatten, dense 128, relu, dense 32, relu | 32 |
| dense classes | classes |

80,090 parameters with 10 classes. PyTorch's initialization: kernels and biases uniform in
+-1 / sqrt(fan-in). The write-up lists only the layers; the relus are placed as usual.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.models.layers import flatten, torch_conv, torch_linear
from cifar_jax.ops.pooling import max_pool


class CNNSmall(nnx.Module):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes kernels and biases.
      dtype: Dtype of the computation; parameters and logits are float32.
    """

    def __init__(self, num_classes: int, rngs: nnx.Rngs, *, dtype=jnp.float32):
        options = dict(dtype=dtype, rngs=rngs)
        self.conv1 = torch_conv(3, 8, 5, **options)
        self.conv2 = torch_conv(8, 16, 3, **options)
        self.dense1 = torch_linear(6 * 6 * 16, 128, **options)
        self.dense2 = torch_linear(128, 32, **options)
        self.dense3 = torch_linear(32, num_classes, rngs=rngs)

    def __call__(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits [B, num_classes] for images [B, 32, 32, 3]; rngs is unused."""
        del rngs
        x = max_pool(nnx.relu(self.conv1(images)), 2)
        x = nnx.avg_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
        x = nnx.relu(self.dense1(flatten(x)))
        return self.dense3(nnx.relu(self.dense2(x)))
