"""Max-pooling as selections over slices, whose gradient is fast on every backend."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax


def max_pool(
    x: jax.Array, window: int, stride: int | None = None, padding: int | str = 0
) -> jax.Array:
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
      padding: pixels of -inf added on every side, or "SAME": as many as Keras's "same" adds, with
        any odd pixel at the bottom and right.

    Returns:
      [B, H', W', C], where H' = (H + 2 * padding - window) // stride + 1, or ceil(H / stride) with
      "SAME".
    """
    stride = stride or window
    if padding:
        sides = ((padding, padding),) * 2
        if padding == "SAME":
            sides = lax.padtype_to_pads(x.shape[1:3], (window,) * 2, (stride,) * 2, padding)
        x = jnp.pad(x, ((0, 0), *sides, (0, 0)), constant_values=-jnp.inf)
    by_window = functools.partial(_by_window, window=window, stride=stride)
    if stride >= window:
        return by_window(x)
    # A GPU would run more kernels.
    by_axis = functools.partial(_by_axis, window=window, stride=stride)
    return lax.platform_dependent(x, cpu=by_axis, default=by_window)


def _by_window(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Takes the maximum over windows, as a chain of window**2 slices."""
    batch, height, width, channels = x.shape
    extent = [(size - window) // stride * stride + 1 for size in (height, width)]
    slices = [
        lax.slice(
            x, (0, i, j, 0), (batch, i + extent[0], j + extent[1], channels), (1, stride, stride, 1)
        )
        for i in range(window)
        for j in range(window)
    ]
    return _maximum(slices)


def _by_axis(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Does the same as `_by_window` along each row first, which takes 2 * window slices.

    Windows that overlap share the maxima of parts of their rows.
    """
    return _along(_along(x, window, stride, axis=2), window, stride, axis=1)


def _along(x: jax.Array, window: int, stride: int, axis: int) -> jax.Array:
    """Takes the maximum over windows along one axis."""
    extent = (x.shape[axis] - window) // stride * stride + 1
    return _maximum([lax.slice_in_dim(x, i, i + extent, stride, axis) for i in range(window)])


def global_max_pool(x: jax.Array) -> jax.Array:
    """Takes the maximum over all pixels, [B, H, W, C] to [B, C], with the gradient of `max_pool`.

    Reducing rows first and columns second needs only H + W slices. If several values are equal to
    the maximum, one of them receives the gradient.
    """
    rows = _maximum([x[:, i] for i in range(x.shape[1])])
    return _maximum([rows[:, j] for j in range(rows.shape[1])])


def _maximum(arrays: Sequence[jax.Array]) -> jax.Array:
    # The second condition propagates NaN.
    return functools.reduce(lambda a, b: jnp.where((b > a) | (b != b), b, a), arrays)
