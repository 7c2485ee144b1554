"""VGG-16 with BatchNorm (Simonyan and Zisserman, 2014), as in chenyaofo/pytorch-cifar-models.

| layer | output |
|---|---|
| two conv 3x3, 64, max-pool 2 | 16 x 16 x 64 |
| two conv 3x3, 128, max-pool 2 | 8 x 8 x 128 |
| three conv 3x3, 256, max-pool 2 | 4 x 4 x 256 |
| three conv 3x3, 512, max-pool 2 | 2 x 2 x 512 |
| three conv 3x3, 512, max-pool 2 | 1 x 1 x 512 |
| global average pool | 512 |
| two dense 512, relu, dropout 0.5 after each | 512 |
| dense classes | classes |

BN and relu follow every convolution. With 100 classes there are 15,299,748 parameters.

Deviations from the paper: BatchNorm, and dense layers of 512 instead of 4,096 units. Deviation from
the code of pytorch-cifar-models: it flattens the last array, which is the same as the average pool
for 32x32 pixels; with the pool, the network also takes larger images.

As in that code and in torchvision, convolutions have biases, kernels are He normal by fan-out,
dense weights are normal with standard deviation 0.01, biases are zero, and BN has eps 1e-5 and
momentum 0.1 (0.9 in Flax). vgg16 in plain.py has no BatchNorm and one dense layer.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.nn.initializers import normal

from cifar_jax.errors import UserError, is_number, quote
from cifar_jax.models.layers import (
    BatchNorm,
    Conv,
    DenseHead,
    Dropout,
    Linear,
    Paths,
    he_fan_out_init,
)
from cifar_jax.ops.pooling import max_pool

VGG16 = (64, 64, "M", 128, 128, "M", *(256,) * 3, "M", *(512,) * 3, "M", *(512,) * 3, "M")


class ConvBlock(nnx.Module):
    """relu(BN(conv(x))): [B, H, W, I] to [B, H, W, O]."""

    def __init__(self, in_features: int, features: int, rngs: nnx.Rngs, dtype):
        self.conv = Conv(
            in_features, features, (3, 3),
            padding=1, kernel_init=he_fan_out_init, dtype=dtype, rngs=rngs,
        )  # fmt: skip
        self.bn = BatchNorm(features, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Applies the block."""
        return nnx.relu(self.bn(self.conv(x)))


class VGGBN(DenseHead):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      layers: The body: a number is a 3x3 convolution with this many filters, BN and a relu, "M" a
        max-pool 2.
      dense_units: Number of units of each hidden dense layer.
      dropout: Dropout rate after each hidden dense layer.
      image_size: Height and width of the images in pixels, S.
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.

    Raises:
      UserError: If a layer is invalid, no layer is a convolution, the max-pools leave no pixels, or
        the dropout rate is outside [0, 1).
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        layers: Sequence[int | str] = VGG16,
        dense_units: int = 512,
        dropout: float = 0.5,
        image_size: int = 32,
        dtype=jnp.float32,
    ):
        blocks, features = [], 3
        for layer in layers:
            if layer == "M":
                image_size //= 2
            elif is_number(layer) and isinstance(layer, int) and 1 <= layer < 2**16:
                blocks.append(ConvBlock(features, layer, rngs, dtype))
                features = layer
            else:
                raise UserError(f"a layer must be 1 to 65,535 filters or 'M', got {layer!r}")
        if not blocks or image_size < 1:
            raise UserError(
                "layers must be one convolution or more, with max-pools that leave at least one "
                f"pixel, got {quote(layers)}"
            )
        self.layers = tuple(layers)
        self.blocks = nnx.List(blocks)
        options = dict(kernel_init=normal(0.01), rngs=rngs)
        self.dense1 = Linear(features, dense_units, dtype=dtype, **options)
        self.dropout1 = Dropout(dropout)
        self.dense2 = Linear(dense_units, dense_units, dtype=dtype, **options)
        self.dropout2 = Dropout(dropout)
        self.dense = Linear(dense_units, num_classes, **options)

    def features(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns the features [B, D] after the global average pool; rngs is unused."""
        del rngs
        x, blocks = images, iter(self.blocks)
        for layer in self.layers:
            x = max_pool(x, 2) if layer == "M" else next(blocks)(x)
        return jnp.mean(x, axis=(1, 2))

    def classify(self, features: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits [B, num_classes] for features [B, D]; dropout needs rngs."""
        x = self.dropout1(nnx.relu(self.dense1(features)), rngs=rngs)
        x = self.dropout2(nnx.relu(self.dense2(x)), rngs=rngs)
        return self.dense(x)

    def head_paths(self) -> Paths:
        """Returns the prefixes of the paths of the dense layers."""
        return (("dense",), ("dense2",), ("dense1",))

    def groups(self) -> tuple[Paths, ...]:
        """Returns the prefixes of the head and of the blocks between max-pools, the last first."""
        stages, count = [[]], 0
        for layer in self.layers:
            if layer == "M":
                stages.append([])
            else:
                stages[-1].append(("blocks", count))
                count += 1
        return (self.head_paths(), *(tuple(stage) for stage in reversed(stages) if stage))
