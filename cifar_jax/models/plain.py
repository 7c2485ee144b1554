"""Plain networks, a list of layers one behind the other: VGG16 and five of the write-ups'.

The list is written as torchvision writes its VGGs: a number is a convolution 3x3 with as many
filters and a relu, "M" a max-pool 2, "B" BatchNorm, "D" dropout. Behind "F", flatten, a number is
a dense layer with a relu. The dense layer of the classes comes last by itself.

| network | layers | parameters, 100 classes |
|---|---|---|
| vgg16 | 64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M F | 14,765,988 |
| cnn13 | as cnn9, two more units of 512 before F | 9,585,700 |
| cnn9 | 64 B 64 B D M 128 B D 128 M 256 B D 256 M F 256 B D 128 | 2,241,572 |
| simple_initial | 64 128 M D F | 2,584,548 |
| stacked3 | 32 64 128 M B D F 256 512 B D | 5,815,460 |
| school | 128 128 B M D 256 B 256 B M D 512 B 512 B D F 512 D B | 4,894,692 |
| simple | 64 128 M 256 M 512 B 1024 B M D F 256 D | 6,561,764 |

vgg16 is the body of keras.applications.VGG16 (Simonyan and Zisserman, 2014; 14,714,688 parameters)
under one dense layer: at 32x32 pixels the body leaves 1 x 1 x 512. cnn13, of thirteen weight
layers, is the hybrid write-up's first network, cnn9 its first three units (that document says
"shallower" and no more). The other four, with valid padding, are the callbacks write-up's. Their
layers are those in the authors' repositories, chentalen2021/CIFAR100_classification,
kurtameyer/CIFAR100 and coreymunk/Deep-Learning-CIFAR-100. Keras counts the running means and
variances of BN with the parameters: 5,816,740 for stacked3, 4,899,044 for school.

Keras' conventions: Glorot uniform kernels, zero biases, BN behind the relu with eps 1e-3 and
momentum 0.99.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.errors import UserError
from cifar_jax.models.layers import (
    BatchNorm,
    Conv,
    Dropout,
    Linear,
    flatten,
    keras_init,
    per_layer,
)
from cifar_jax.ops.pooling import max_pool

Layers = Sequence[int | str]

VGG16 = (64, 64, "M", 128, 128, "M", *(256,) * 3, "M", *(512,) * 3, "M", *(512,) * 3, "M", "F")
_UNITS = tuple((filters, "B", "D", filters, "M") for filters in (128, 256, 512, 512))
_FIRST, _DENSE = (64, "B", 64, "B", "D", "M"), ("F", 256, "B", "D", 128)
CNN13 = (*_FIRST, *_UNITS[0], *_UNITS[1], *_UNITS[2], *_UNITS[3], *_DENSE)
CNN9 = (*_FIRST, *_UNITS[0], *_UNITS[1], *_DENSE)
SIMPLE_INITIAL = (64, 128, "M", "D", "F")
STACKED3 = (32, 64, 128, "M", "B", "D", "F", 256, 512, "B", "D")
SCHOOL = (
    *(128, 128, "B", "M", "D"),
    *(256, "B", 256, "B", "M", "D"),
    *(512, "B", 512, "B", "D"),
    *("F", 512, "D", "B"),
)
SIMPLE = (64, 128, "M", 256, "M", 512, "B", 1024, "B", "M", "D", "F", 256, "D")


class Plain(nnx.Module):
    """See the module's docstring.

    Args:
      num_classes: number of logits.
      rngs: its `params` stream initialises the kernels.
      layers: the list.
      padding: of the convolutions, "SAME" or "VALID".
      dropout: rate of each "D"; one number for all.
      dtype: of the computation; parameters, statistics, BN and logits are float32.

    Raises:
      UserError: for a list that is none, or rates that do not fit it.
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        layers: Layers,
        padding: str = "SAME",
        dropout: float | Sequence[float] = 0.0,
        dtype=jnp.float32,
    ):
        if padding not in ("SAME", "VALID"):
            raise UserError(f"padding needs to be 'SAME' or 'VALID', not {padding!r}")
        if layers.count("F") != 1:
            raise UserError(f"layers need one 'F', flatten, not {layers.count('F')}: {layers}")
        count = layers.count("D")
        if not count and dropout:
            raise UserError(f"dropout {dropout} needs a 'D' in the layers: {layers}")
        rates = iter(per_layer(dropout, count, "dropout") if count else ())
        init = dict(kernel_init=keras_init, rngs=rngs)
        size, features, is_flat = 32, 3, False  # of what the next layer sees
        made = []
        for layer in layers:
            if layer == "F":
                made.append(flatten)
                size, features, is_flat = 1, size * size * features, True
            elif layer == "M" and not is_flat:
                made.append(_halve)
                size //= 2
            elif layer == "B":
                made.append(BatchNorm(features, momentum=0.99, epsilon=1e-3, rngs=rngs))
            elif layer == "D":
                made.append(Dropout(next(rates)))
            elif isinstance(layer, int) and is_flat:
                made.append(Linear(features, layer, dtype=dtype, **init))
                features = layer
            elif isinstance(layer, int):
                made.append(Conv(features, layer, (3, 3), padding=padding, dtype=dtype, **init))
                size, features = size - 2 * (padding == "VALID"), layer
            else:
                raise UserError(f"no layer {layer!r} here; known: numbers, 'M', 'B', 'D', 'F'")
            if size < 1:
                raise UserError(f"layer {layer!r}, the {len(made)}th, has no pixels left: {layers}")
        self.layers = nnx.List(made)
        self.dense = Linear(features, num_classes, **init)

    def __call__(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits [B, num_classes] of images [B, 32, 32, 3]; rngs for dropout only."""
        x = images
        for layer in self.layers:
            if isinstance(layer, Dropout):
                x = layer(x, rngs=rngs)
            elif isinstance(layer, nnx.Conv | nnx.Linear):
                x = nnx.relu(layer(x))
            else:
                x = layer(x)
        return self.dense(x)


def _halve(x: jax.Array) -> jax.Array:
    return max_pool(x, 2)
