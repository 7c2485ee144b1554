"""Layers and initializers of the networks, most of them adapted from Flax NNX."""

import itertools
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.nn.initializers import glorot_uniform, variance_scaling

from cifar_jax.errors import UserError
from cifar_jax.ops.conv import conv_general_dilated
from cifar_jax.ops.dense import dot_general

# Flax's layers with the forms of convolution and matrix product that the backend runs fastest.
Conv = partial(nnx.Conv, conv_general_dilated=conv_general_dilated)
Linear = partial(nnx.Linear, dot_general=dot_general)

# Prefixes of the paths of arrays in a network, as in nnx.to_pure_dict: (("blocks", 0), ("dense",)).
Paths = tuple[tuple[str | int, ...], ...]

# The stems of ResNets: a 3x3 convolution, or a 7x7 one with stride 2 and a max-pool.
STEMS = ("cifar", "imagenet")

# The default kernel initializers of the write-ups' frameworks.
keras_init = glorot_uniform()
# torch.nn.Conv2d and Linear: kaiming_uniform(a=sqrt(5)), i.e. a variance of 1 / (3 fan_in).
torch_init = variance_scaling(1 / 3, "fan_in", "uniform")
# He et al. (2015), for ResNets: kaiming_normal(mode='fan_out', nonlinearity='relu').
he_fan_out_init = variance_scaling(2.0, "fan_out", "normal")


def torch_bias_init(fan_in: int):
    """Returns PyTorch's default bias initializer, uniform in +-1 / sqrt(fan_in)."""
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(
        key, shape, dtype, -(fan_in**-0.5), fan_in**-0.5
    )


def torch_conv(in_features: int, features: int, kernel_size: int, **options) -> nnx.Conv:
    """Returns a convolution with the defaults of torch.nn.Conv2d.

    It has valid padding; kernel and bias are uniform in +-1 / sqrt(fan-in).
    """
    bias_init = torch_bias_init(in_features * kernel_size**2)
    return Conv(
        in_features, features, (kernel_size, kernel_size),
        padding="VALID", kernel_init=torch_init, bias_init=bias_init, **options,
    )  # fmt: skip


def torch_linear(in_features: int, features: int, **options) -> nnx.Linear:
    """Returns a dense layer with the defaults of torch.nn.Linear.

    Kernel and bias are uniform in +-1 / sqrt(fan-in).
    """
    bias_init = torch_bias_init(in_features)
    return Linear(in_features, features, kernel_init=torch_init, bias_init=bias_init, **options)


def he_conv(
    in_features: int, features: int, kernel_size: int, stride: int = 1, **options
) -> nnx.Conv:
    """Returns a convolution as in torchvision's ResNets, for odd kernel sizes.

    It has no bias and symmetric padding, which keeps the size if the stride is 1; the kernel is He
    normal by fan-out.
    """
    return Conv(
        in_features, features, (kernel_size, kernel_size), stride, padding=kernel_size // 2,
        use_bias=False, kernel_init=he_fan_out_init, **options,
    )  # fmt: skip


class Dropout(nnx.Dropout):
    """nnx.Dropout that validates its rate.

    Raises:
      UserError: If the rate is outside [0, 1).
    """

    def __init__(self, rate: float):
        if not 0 <= rate < 1:
            raise UserError(f"a dropout rate must be in [0, 1), got {rate}")
        super().__init__(rate)


class BatchNorm(nnx.BatchNorm):
    """Batch normalization computed in float32 or wider; the output has the dtype of the input.

    nnx.BatchNorm(dtype=bfloat16) would cast the running statistics to bfloat16 in evaluation, which
    adds a bias of 0.02 standard deviations; computing in float32 costs nothing once XLA has fused
    it. The running variance is the biased estimate; PyTorch's is the unbiased one.

    The output is computed as x * scale + shift, so that x is the only array of its size kept for
    the gradient. With nnx's (x - mean) * scale + bias, x - mean would be kept too.

    Args:
      num_features: Number of channels C.
      momentum: Decay of the running statistics per step.
      epsilon: Number added to the variance.
      use_scale: Whether to multiply by a learned scale.
      use_bias: Whether to add a learned bias.
      rngs: The `params` stream initializes scale and bias.
    """

    def __init__(
        self,
        num_features: int,
        *,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        use_scale: bool = True,
        use_bias: bool = True,
        rngs: nnx.Rngs,
    ):
        super().__init__(
            num_features, momentum=momentum, epsilon=epsilon,
            use_scale=use_scale, use_bias=use_bias, rngs=rngs,
        )  # fmt: skip

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes x [..., C] over all axes except the last."""
        values = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        if self.use_running_average:
            mean, variance = self.mean[...], self.var[...]
        else:
            axes = tuple(range(x.ndim - 1))
            mean = values.mean(axes)
            variance = jnp.maximum((values * values).mean(axes) - mean * mean, 0)
            for running, new in ((self.mean, mean), (self.var, variance)):
                # Tracing `running[...] = value` takes time quadratic in the layers; see rngs.py.
                running.set_value(self.momentum * running[...] + (1 - self.momentum) * new)
        scale = lax.rsqrt(variance + self.epsilon)
        if self.scale is not None:
            scale = scale * self.scale[...]
        shift = -mean * scale
        if self.bias is not None:
            shift = shift + self.bias[...]
        return (values * scale + shift).astype(x.dtype)


class LayerNorm(nnx.LayerNorm):
    """Layer normalization computed in float32 or wider; the output has the dtype of the input.

    nnx.LayerNorm(dtype=bfloat16) would round the scale and the bias to bfloat16 too.
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes x [..., C] over its last axis."""
        return super().__call__(x).astype(x.dtype)


def gelu(x: jax.Array) -> jax.Array:
    """Computes x * Phi(x) in float32 or wider, as PyTorch does; the output has the dtype of x.

    jax.nn.gelu(x, approximate=False) computes in the dtype of x, and uses erfc, which takes several
    times as many operations as erf. In bfloat16, XLA then saves erfc for the gradient on GPUs, in
    an array of the size of x; erf is computed again.
    """
    values = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return (0.5 * values * (1 + lax.erf(values * 0.5**0.5))).astype(x.dtype)


def flatten(x: jax.Array) -> jax.Array:
    """Reshapes [B, ...] to [B, features], in Keras's order: rows, columns, channels."""
    return x.reshape(x.shape[0], -1)


class DenseHead(nnx.Module):
    """A network whose head is one dense layer, `dense`; subclasses define its body, `features`.

    Those with other layers in the head define `classify` and `head_paths`, too.
    """

    def __call__(self, images: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits [B, num_classes] for images [B, S, S, 3]; see features for rngs."""
        return self.classify(self.features(images, rngs), rngs)

    def classify(self, features: jax.Array, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Returns logits [B, num_classes] for features [B, D]; rngs is unused."""
        del rngs
        return self.dense(features)

    def head_paths(self) -> Paths:
        """Returns the prefixes of the head's parameter paths."""
        return (("dense",),)


def block_sizes(
    depths: Sequence[int], in_features: int, features: int
) -> list[tuple[int, int, int]]:
    """Returns (input channels, output channels, stride) of each block of a ResNet.

    The number of output channels doubles with each stage. The stride is 2 in the first block of
    every stage except the first, and otherwise 1.

    Args:
      depths: Number of blocks per stage.
      in_features: Number of input channels of the first block.
      features: Number of output channels of the first stage.
    """
    sizes = []
    for stage, depth in enumerate(depths):
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 else 1
            sizes.append((in_features, features * 2**stage, stride))
            in_features = features * 2**stage
    return sizes


def stage_groups(
    depths: Sequence[int],
    *,
    stem: Paths = (("conv_stem",), ("bn_stem",)),
    end: Paths = (),
) -> tuple[Paths, ...]:
    """Returns the prefixes of a ResNet's groups of layers: head, stages (the last first), stem.

    Args:
      depths: Number of blocks per stage.
      stem: Prefixes of the layers before the blocks.
      end: Prefixes of the layers between the blocks and the head, which join the last stage.
    """
    ends = itertools.accumulate(depths)
    stages = [
        tuple(("blocks", i) for i in range(stop - depth, stop))
        for depth, stop in zip(depths, ends, strict=True)
    ]
    stages[-1] += end
    return ((("dense",),), *reversed(stages), stem)


def mean_over_pixels(x: jax.Array) -> jax.Array:
    """Returns the mean over height and width: [B, H, W, C] to [B, C].

    Raises:
      UserError: If there are no pixels, because the image has been halved too often.
    """
    if not (x.shape[1] and x.shape[2]):
        raise UserError(f"the stages of the network leave no pixels: their output is {x.shape}")
    return jnp.mean(x, axis=(1, 2))


def per_layer(value: float | Sequence[float], count: int, name: str) -> tuple[float, ...]:
    """Returns `value` as one number per layer; a single number applies to every layer.

    Raises:
      UserError: If `value` has neither 1 nor `count` numbers.
    """
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    if len(values) == 1:
        values *= count
    if len(values) != count:
        raise UserError(f"{name} must be one number or {count}, one per layer, got {values}")
    return values
