"""Convolutions with 3x3 kernels that take half the multiplications, for CPUs.

Winograd's minimal filtering F(4, 3) (Lavin and Gray, 2016, arXiv:1509.09308) is applied along the
width only: six products instead of twelve give four neighboring outputs of three taps. Along the
height, each of the six products is a convolution with a 3x1 kernel. Tiles in both dimensions would
take even fewer multiplications, but their memory traffic costs more than they save.

XLA's library call reaches 85 to 105 of about 105 GFLOP/s on one core of a Zen 4, so only a form
with fewer operations can be faster. The forward pass and both gradients together take 0.45 to 0.8
of the library call's time.

The points 0, 1, -1, 2, -1/2 and infinity keep the rounding error in float32 within about three
times that of the direct sum; with the usual 2 and -2 it is a sixth larger. A value that is not
finite spreads to the four outputs of its tile, where an infinity becomes NaN.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cifar_jax.ops.tiles import TILE, conv_rows, every_fourth, interleaved, num_tiles

# Number of taps of the kernel along the width.
_TAPS = 3
# Outputs = OUTPUT @ ((KERNEL @ taps) * (INPUT @ inputs)) for six neighboring inputs.
_OUTPUT = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -1 / 2, 0],
        [0, 1, 1, 4, 1 / 4, 0],
        [0, 1, -1, 8, -1 / 8, 1],
    ]
)
_KERNEL = np.array(
    [
        [1, 0, 0],
        [-1 / 3, -1 / 3, -1 / 3],
        [1 / 3, -1 / 3, 1 / 3],
        [1 / 15, 2 / 15, 4 / 15],
        [-16 / 15, 8 / 15, -4 / 15],
        [0, 0, 1],
    ]
)
_INPUT = np.array(
    [
        [1, 3 / 2, -2, -3 / 2, 1, 0],
        [0, -1, -5 / 2, -1 / 2, 1, 0],
        [0, 1, 1 / 2, -5 / 2, 1, 0],
        [0, -1 / 2, -1, 1 / 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 1, 3 / 2, -2, -3 / 2, 1],
    ]
)
# With fewer channels, the transforms take more time than the products save.
_MIN_CHANNELS = 16
# Max ratio of computed to used outputs, for widths that are not a multiple of the tile.
_MAX_WASTE = 4 / 3


def is_applicable(image_shape, kernel_shape, padding, dtype) -> bool:
    """Returns whether `conv` supports a convolution and is faster than the direct sum.

    Args:
      image_shape: (B, H, W, I).
      kernel_shape: (h, w, I, O).
      padding: ((low, high), (low, high)) of height and width, in pixels.
      dtype: dtype of both images and kernel.
    """
    height, width = (
        size + sum(sides) - _TAPS + 1 for size, sides in zip(image_shape[1:3], padding, strict=True)
    )
    return (
        tuple(kernel_shape[:2]) == (_TAPS, _TAPS)
        and dtype == jnp.float32
        and min(kernel_shape[2:]) >= _MIN_CHANNELS
        # The padding of the gradient, 2 - side, must not be negative.
        and all(0 <= side < _TAPS for sides in padding for side in sides)
        # XLA uses the smaller of images and kernel as the kernel, which would exchange the two in
        # `conv_rows`, in the forward pass or in the gradient of the kernel.
        and _TAPS <= height <= image_shape[1]
        and max(_waste(width), _waste(image_shape[2])) <= _MAX_WASTE
    )


def _waste(width: int) -> float:
    """Returns the ratio of computed to used outputs in a row of `width`."""
    return num_tiles(width) * TILE / width if width > 0 else np.inf


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(images, kernel, padding, precision=None):
    """Convolves [B, H, W, I] images with a [3, 3, I, O] kernel to [B, H', W', O], all float32.

    Requires that `is_applicable` holds. Only reverse-mode differentiation is defined.

    Args:
      padding: ((low, high), (low, high)) of height and width, in pixels.
      precision: precision of the products, see `lax.conv_general_dilated`.
    """
    return _forward(images, kernel, padding, precision)[0]


@functools.partial(jax.jit, static_argnums=(2, 3))
def _forward(images, kernel, padding, precision):
    out, parts = _convolve(images, _transform(kernel), padding, precision)
    return out, (parts, kernel)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _backward(padding, precision, residuals, grad):
    parts, kernel = residuals
    flipped = [lax.rev(taps, (0,)).transpose(0, 1, 3, 2) for taps in _transform(kernel)]
    around = tuple((_TAPS - 1 - low, _TAPS - 1 - high) for low, high in padding)
    images_grad, _ = _convolve(grad, flipped, around, precision, is_flipped=True)
    return images_grad, _kernel_gradient(parts, grad, padding, precision)


conv.defvjp(_forward, _backward)


def _transform(kernel):
    """Transforms a kernel [3, 3, I, O] into six kernels [3, 1, I, O]."""
    return [_weighted(row, jnp.split(kernel, _TAPS, axis=1)) for row in _KERNEL]


def _convolve(images, kernels, padding, precision, is_flipped=False):
    """Convolves images with a transformed kernel.

    Args:
      images: [B, H, W, I].
      kernels: six kernels [3, 1, I, O], as returned by `_transform`.
      padding: ((low, high), (low, high)) of height and width, in pixels.
      precision: precision of the products, see `lax.conv_general_dilated`.
      is_flipped: whether to flip the kernel from left to right.

    Returns:
      The output [B, H', W', O] and the six transformed inputs [B, H, ceil(W' / 4), I].
    """
    width = images.shape[2] + sum(padding[1]) - _TAPS + 1
    neighbors = every_fourth(images, width, padding[1][0], _TAPS - 1)
    # Flipping the kernel is equivalent to flipping inputs and outputs.
    inputs, outputs = (_INPUT[:, ::-1], _OUTPUT[::-1]) if is_flipped else (_INPUT, _OUTPUT)
    parts = [_weighted(row, neighbors) for row in inputs]
    products = [
        conv_rows(part, taps, padding, precision) for part, taps in zip(parts, kernels, strict=True)
    ]
    # The barrier makes the interleaving a plain copy; fusing it with the weighted sums is slower.
    phases = lax.optimization_barrier([_weighted(row, products) for row in outputs])
    return interleaved(jnp.concatenate(phases, axis=-1), width), parts


def _kernel_gradient(parts, grad, padding, precision):
    """Returns the gradient [3, 3, I, O] with respect to the kernel: `_convolve` transposed."""
    neighbors = every_fourth(grad, grad.shape[2])
    # With batch and channels exchanged, this is again a convolution.
    products = [
        conv_rows(
            part.transpose(3, 1, 2, 0),
            _weighted(column, neighbors).transpose(1, 2, 0, 3),
            padding,
            precision,
        )
        for part, column in zip(parts, _OUTPUT.T, strict=True)
    ]
    gradient = jnp.concatenate([_weighted(column, products) for column in _KERNEL.T], axis=2)
    return gradient.transpose(1, 2, 0, 3)


def _weighted(weights, arrays):
    """Returns the weighted sum of arrays; terms with weight 0 are skipped."""
    terms = [
        x if weight == 1 else -x if weight == -1 else jnp.asarray(weight, x.dtype) * x
        for weight, x in zip(weights, arrays, strict=True)
        if weight
    ]
    return sum(terms[1:], terms[0])
