"""Plain sequential networks: VGGs and the write-ups' networks without branches or shortcuts.

A network is a list of layers in the notation of torchvision's VGGs: a number is a 3x3 convolution
with this many filters and a relu, "M" a max-pool 2, "B" BatchNorm, "D" dropout, "F" flatten, "A" a
global average pool instead of "F". "F" or "A" ends the body; after it, a number is a dense layer
with this many units and a relu. A dense layer with one unit per class is always appended.

| network | layers | parameters, 100 classes |
|---|---|---|
| vgg16 | 64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M F | 14,765,988 |
| vgg19 | vgg16 with a fourth convolution in each of the last three blocks | 20,075,684 |
| cnn13 | cnn9 with two more blocks of 512 before F | 9,585,700 |
| cnn9 | 64 B 64 B D M 128 B D 128 M 256 B D 256 M F 256 B D 128 | 2,241,572 |
| simple_initial | 64 128 M D F | 2,584,548 |
| stacked3 | 32 64 128 M B D F 256 512 B D | 5,815,460 |
| school | 128 128 B M D 256 B 256 B M D 512 B 512 B D F 512 D B | 4,894,692 |
| simple | 64 128 M 256 M 512 B 1024 B M D F 256 D | 6,561,764 |

vgg16 and vgg19 are the bodies of keras.applications.VGG16 and VGG19 (Simonyan and Zisserman, 2014;
14,714,688 and 20,024,384 parameters) followed by one dense layer; at 32x32 pixels the output of the
body is 1 x 1 x 512. cnn13, with thirteen weight layers, is the hybrid write-up's first network.
cnn9 has the first three blocks of cnn13; the write-up only calls it "shallower". The other four,
with valid padding, are from the callbacks write-up. The layers are those in the authors'
repositories, chentalen2021/CIFAR100_classification, kurtameyer/CIFAR100 and
coreymunk/Deep-Learning-CIFAR-100. Keras includes the running means and variances of BN in its
parameter counts: 5,816,740 for stacked3, 4,899,044 for school.

Keras's conventions: Glorot uniform kernels, zero biases, BN after the relu with eps 1e-3 and
momentum 0.99.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.errors import UserError, is_number
from cifar_jax.models.layers import (
    BatchNorm,
    Conv,
    DenseHead,
    Dropout,
    Linear,
    Paths,
    flatten,
    keras_init,
    per_layer,
)
from cifar_jax.ops.pooling import max_pool

Layers = Sequence[int | str]

VGG16 = (64, 64, "M", 128, 128, "M", *(256,) * 3, "M", *(512,) * 3, "M", *(512,) * 3, "M", "F")
VGG19 = (64, 64, "M", 128, 128, "M", *(256,) * 4, "M", *(512,) * 4, "M", *(512,) * 4, "M", "F")
_BLOCKS = tuple((filters, "B", "D", filters, "M") for filters in (128, 256, 512, 512))
_FIRST, _DENSE = (64, "B", 64, "B", "D", "M"), ("F", 256, "B", "D", 128)
CNN13 = (*_FIRST, *_BLOCKS[0], *_BLOCKS[1], *_BLOCKS[2], *_BLOCKS[3], *_DENSE)
CNN9 = (*_FIRST, *_BLOCKS[0], *_BLOCKS[1], *_DENSE)
SIMPLE_INITIAL = (64, 128, "M", "D", "F")
STACKED3 = (32, 64, 128, "M", "B", "D", "F", 256, 512, "B", "D")
SCHOOL = (
    *(128, 128, "B", "M", "D"),
    *(256, "B", 256, "B", "M", "D"),
    *(512, "B", 512, "B", "D"),
    *("F", 512, "D", "B"),
)
SIMPLE = (64, 128, "M", 256, "M", 512, "B", 1024, "B", "M", "D", "F", 256, "D")


class Plain(DenseHead):
    """The network described in the module's docstring.

    Args:
      num_classes: Number of logits.
      rngs: The `params` stream initializes the kernels.
      layers: List of layers, in the notation of the module's docstring.
      padding: Padding of the convolutions, "SAME" or "VALID".
      dropout: Dropout rate of each "D"; a single number applies to all.
      image_size: Height and width of the images in pixels, S.
      dtype: Dtype of the computation; parameters, statistics, BN and logits are float32.

    Raises:
      UserError: If the layers or the padding are invalid, or the number of dropout rates does not
        match the layers.
    """

    def __init__(
        self,
        num_classes: int,
        rngs: nnx.Rngs,
        *,
        layers: Layers,
        padding: str = "SAME",
        dropout: float | Sequence[float] = 0.0,
        image_size: int = 32,
        dtype=jnp.float32,
    ):
        if padding not in ("SAME", "VALID"):
            raise UserError(f"padding must be 'SAME' or 'VALID', got {padding!r}")
        num_ends = layers.count("F") + layers.count("A")
        if num_ends != 1:
            raise UserError(
                "layers must contain exactly one 'F' (flatten) or 'A' (global average pool), got "
                f"{num_ends}: {layers}"
            )
        count = layers.count("D")
        if not count and dropout:
            raise UserError(f"dropout {dropout} requires a 'D' in the layers, got {layers}")
        rates = iter(per_layer(dropout, count, "dropout") if count else ())
        init = dict(kernel_init=keras_init, rngs=rngs)
        size, features, is_flat = image_size, 3, False  # shape of the next layer's input
        modules = []
        for layer in layers:
            if layer == "F":
                modules.append(flatten)
                size, features, is_flat = 1, size * size * features, True
                self.body_length = len(modules)
            elif layer == "A":
                modules.append(_average)
                size, is_flat = 1, True
                self.body_length = len(modules)
            elif layer == "M" and not is_flat:
                modules.append(_halve)
                size //= 2
            elif layer == "B":
                modules.append(BatchNorm(features, momentum=0.99, epsilon=1e-3, rngs=rngs))
            elif layer == "D":
                modules.append(Dropout(next(rates)))
            elif is_number(layer) and not 1 <= layer < 2**16:
                raise UserError(f"a layer must have 1 to 65,535 units, got {layer}: {layers}")
            elif isinstance(layer, int) and is_flat:
                modules.append(Linear(features, layer, dtype=dtype, **init))
                features = layer
            elif isinstance(layer, int):
                modules.append(Conv(features, layer, (3, 3), padding=padding, dtype=dtype, **init))
                size, features = size - 2 * (padding == "VALID"), layer
            else:
                raise UserError(
                    f"a layer must be a number, 'B', 'D', 'F', 'A' or, before 'F' or 'A', 'M', got "
                    f"{layer!r}"
                )
            if size < 1:
                raise UserError(f"layer {len(modules)}, {layer!r}, leaves no pixels: {layers}")
        self.layers = nnx.List(modules)
        self.dense = Linear(features, num_classes, **init)

    def features(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns the output [B, D] of the layers up to "F" or "A"; dropout needs rngs."""
        return _apply(list(self.layers)[: self.body_length], images, rngs)

    def classify(self, features: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits [B, num_classes] for features [B, D]; dropout needs rngs."""
        return self.dense(_apply(list(self.layers)[self.body_length :], features, rngs))

    def head_paths(self) -> Paths:
        """Returns the prefixes of the paths of all layers after the body, dropout included."""
        head = range(self.body_length, len(self.layers))
        return (("dense",), *(("layers", i) for i in head))

    def groups(self) -> tuple[Paths, ...]:
        """Returns the prefixes of the head and of the blocks between max-pools, the last first."""
        blocks, is_new = [[]], False
        for i, layer in enumerate(list(self.layers)[: self.body_length]):
            is_new = is_new or layer is _halve
            if is_new and isinstance(layer, nnx.Conv):
                blocks.append([])
                is_new = False
            if _has_params(layer):
                blocks[-1].append(("layers", i))
        return (self.head_paths(), *(tuple(block) for block in reversed(blocks) if block))


def _apply(layers: Sequence[Callable], x: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
    for layer in layers:
        if isinstance(layer, Dropout):
            x = layer(x, rngs=rngs)
        elif isinstance(layer, nnx.Conv | nnx.Linear):
            x = nnx.relu(layer(x))
        else:
            x = layer(x)
    return x


def _has_params(layer: Callable) -> bool:
    return isinstance(layer, nnx.Conv | nnx.Linear | nnx.BatchNorm)


def _average(x: jax.Array) -> jax.Array:
    return jnp.mean(x, axis=(1, 2))


def _halve(x: jax.Array) -> jax.Array:
    return max_pool(x, 2)
