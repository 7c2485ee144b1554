"""Max-pooling by selections over slices, whose gradient every backend runs fast."""

import functools

import jax
import jax.numpy as jnp
from jax import lax


def max_pool(x: jax.Array, window: int, stride: int | None = None, padding: int = 0) -> jax.Array:
    """Takes the maximum of windows: [B, H, W, C] to [B, H', W', C], as Keras and PyTorch do.

    A chain of selections over strided slices: the gradient of `lax.reduce_window` is a
    select-and-scatter, which XLA runs slowly on the CPU. That of `maximum` asks which input equals
    the result, and is lost where XLA computes x a second time and rounds it otherwise, as it does
    with BN's output. The first of equal maxima takes the gradient, as in PyTorch.

    Args:
      x: [B, H, W, C].
      window: height and width.
      stride: from window to window; without one they stand side by side. Rows and columns behind
        the last whole window are left out: H' = (H + 2 * padding - window) // stride + 1.
      padding: pixels on every side that no maximum is taken from.
    """
    stride = stride or window
    if padding:
        sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        x = jnp.pad(x, sides, constant_values=-jnp.inf)
    batch, height, width, channels = x.shape
    reach = [(size - window) // stride * stride + 1 for size in (height, width)]
    slices = [
        lax.slice(
            x, (0, i, j, 0), (batch, i + reach[0], j + reach[1], channels), (1, stride, stride, 1)
        )
        for i in range(window)
        for j in range(window)
    ]
    # The second condition hands a NaN on.
    return functools.reduce(lambda a, b: jnp.where((b > a) | (b != b), b, a), slices)
