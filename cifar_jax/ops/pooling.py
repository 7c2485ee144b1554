"""Max-pooling as selections over slices, whose gradient is fast on every backend."""

import functools

import jax
import jax.numpy as jnp
from jax import lax


def max_pool(x: jax.Array, window: int, stride: int | None = None, padding: int = 0) -> jax.Array:
    """Takes the maximum over windows, as Keras and PyTorch do.

    The maximum is a chain of selections over strided slices, because the gradient of
    `lax.reduce_window` is a select-and-scatter, which XLA runs slowly on CPUs. The gradient of
    `jnp.maximum` compares the inputs with the result, and vanishes if XLA recomputes x with
    different rounding, as it does with the output of batch normalization. If several values are
    equal to the maximum, the first one receives the gradient, as in PyTorch.

    Args:
      x: [B, H, W, C].
      window: height and width of a window, in pixels.
      stride: distance between windows, in pixels; defaults to `window`. Rows and columns after the
        last complete window are ignored.
      padding: pixels of -inf added on every side.

    Returns:
      [B, H', W', C], where H' = (H + 2 * padding - window) // stride + 1.
    """
    stride = stride or window
    if padding:
        sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        x = jnp.pad(x, sides, constant_values=-jnp.inf)
    batch, height, width, channels = x.shape
    extent = [(size - window) // stride * stride + 1 for size in (height, width)]
    slices = [
        lax.slice(
            x, (0, i, j, 0), (batch, i + extent[0], j + extent[1], channels), (1, stride, stride, 1)
        )
        for i in range(window)
        for j in range(window)
    ]
    # The second condition propagates NaN.
    return functools.reduce(lambda a, b: jnp.where((b > a) | (b != b), b, a), slices)
