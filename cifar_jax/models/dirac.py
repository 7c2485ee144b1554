"""Partial identity kernels: `torch.nn.init.dirac_` on the first filters of a convolution."""

import jax
import jax.numpy as jnp

from cifar_jax.models.layers import torch_init


def dirac_init(key: jax.Array, shape: tuple[int, int, int, int], dtype=jnp.float32) -> jax.Array:
    """Draws a kernel whose first min(I, O) filters each copy one input channel.

    The other filters have PyTorch's default initialization, uniform in +-1 / sqrt(fan-in). A layer
    thus initially passes its input on, which saves airbench 3 of 21 epochs (Jordan, "94% on
    CIFAR-10 in 3.29 Seconds on a Single GPU", 2024).

    The identity is at the tap [h // 2, w // 2], as in torch.nn.init.dirac_: the center if h and w
    are odd. With an even size and "SAME" padding, the copy is shifted by a pixel.

    Args:
      key: Key of the random filters.
      shape: [h, w, I, O].
      dtype: Dtype of the kernel.
    """
    height, width, in_features, features = shape
    kernel = jnp.where(jnp.arange(features) < in_features, 0, torch_init(key, shape, dtype))
    identity = jnp.eye(in_features, features, dtype=dtype)
    return kernel.at[height // 2, width // 2].add(identity)
