"""Convolutions by 3x3 kernels with half the multiplications, for CPUs.

Winograd's minimal filtering F(4, 3) (Lavin and Gray, 2016, arXiv:1509.09308) along the width alone:
six products give four neighbouring outputs of three taps, where twelve multiplications do. The rows
stay a convolution by 3x1 kernels, one for each product. Tiles in both directions would take fewer
multiplications still, but move more memory than they save.

A library call of XLA's runs at 85 to 105 of some 105 GFLOP/s on one core of a Zen 4; only fewer
operations are faster. Forward pass and both gradients together take 0.45 to 0.8 of its time.

The points 0, 1, -1, 2, -1/2 and infinity keep float32's rounding within about three times that of
the direct sum; with the usual 2 and -2 it is a sixth more. What is not finite spreads to the four
outputs of its tile, and an infinity becomes NaN there.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_NHWC = ("NHWC", "HWIO", "NHWC")
# Outputs side by side that are computed together, and taps.
TILE, _TAPS = 4, 3
# Outputs = OUTPUT @ ((KERNEL @ taps) * (INPUT @ inputs)) for six neighbouring inputs.
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
# Fewer channels leave more time in the transforms than the products save.
_LEAST_CHANNELS = 16
# Outputs that are computed for each one that is wanted, where the width is no multiple of the tile.
_GREATEST_WASTE = 4 / 3


def pays(image_shape, kernel_shape, padding, dtype) -> bool:
    """Returns whether `conv` can do it and is faster than the direct sum.

    Args:
      image_shape: (B, H, W, I).
      kernel_shape: (h, w, I, O).
      padding: ((low, high), (low, high)) of height and width, in pixels.
      dtype: of both images and kernel.
    """
    height, width = (
        size + sum(sides) - _TAPS + 1 for size, sides in zip(image_shape[1:3], padding, strict=True)
    )
    return (
        tuple(kernel_shape[:2]) == (_TAPS, _TAPS)
        and dtype == jnp.float32
        and min(kernel_shape[2:]) >= _LEAST_CHANNELS
        # The gradient's padding, 2 less these, must not be negative.
        and all(0 <= side < _TAPS for sides in padding for side in sides)
        # XLA makes the smaller of images and kernel the kernel, which would be the wrong one of
        # the two in the convolutions by rows, forward or for the kernel's gradient.
        and _TAPS <= height <= image_shape[1]
        and max(_waste(width), _waste(image_shape[2])) <= _GREATEST_WASTE
    )


def _waste(width: int) -> float:
    return _tiles(width) * TILE / width if width > 0 else np.inf


def _tiles(width: int) -> int:
    return -(-width // TILE)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv(images, kernel, padding, precision=None):
    """Convolves [B, H, W, I] images with a [3, 3, I, O] kernel to [B, H', W', O], all float32.

    Only where `pays` holds; only reverse-mode differentiation is defined.

    Args:
      padding: ((low, high), (low, high)) of height and width, in pixels.
      precision: of the products, see `lax.conv_general_dilated`.
    """
    return _forward(images, kernel, padding, precision)[0]


def _forward(images, kernel, padding, precision):
    out, parts = _convolve(images, _transform(kernel), padding, precision)
    return out, (parts, kernel)


def _backward(padding, precision, residuals, grad):
    parts, kernel = residuals
    turned = [lax.rev(taps, (0,)).transpose(0, 1, 3, 2) for taps in _transform(kernel)]
    around = tuple((_TAPS - 1 - low, _TAPS - 1 - high) for low, high in padding)
    images_grad, _ = _convolve(grad, turned, around, precision, is_turned=True)
    return images_grad, _kernel_gradient(parts, grad, padding, precision)


conv.defvjp(_forward, _backward)


def _transform(kernel):
    """Returns the six kernels [3, 1, I, O] that stand for a kernel [3, 3, I, O]."""
    return [_weighted(row, jnp.split(kernel, _TAPS, axis=1)) for row in _KERNEL]


def _convolve(images, kernels, padding, precision, is_turned=False):
    """Convolves images with a kernel that is given as `_transform` returns it.

    Args:
      is_turned: whether the kernel is that of `_transform` from right to left.

    Returns:
      [B, H', W', O], and the six combinations of neighbours [B, H, ceil(W' / 4), I] that its
      products were taken of.
    """
    width = images.shape[2] + sum(padding[1]) - _TAPS + 1
    neighbours = every_fourth(images, width, padding[1][0], _TAPS - 1)
    # From right to left is the same for inputs and outputs from right to left.
    inputs, outputs = (_INPUT[:, ::-1], _OUTPUT[::-1]) if is_turned else (_INPUT, _OUTPUT)
    parts = [_weighted(row, neighbours) for row in inputs]
    products = [
        conv_rows(part, taps, padding, precision) for part, taps in zip(parts, kernels, strict=True)
    ]
    # Behind the barrier the outputs' interleaving is a copy; XLA computes it in one go slower.
    phases = lax.optimization_barrier([_weighted(row, products) for row in outputs])
    return interleaved(jnp.concatenate(phases, axis=-1), width), parts


def _kernel_gradient(parts, grad, padding, precision):
    """Returns the gradient [3, 3, I, O] of the kernel: the transpose of `_convolve`."""
    neighbours = every_fourth(grad, grad.shape[2])
    # With the batch for channels, and the channels for a batch, this is a convolution again.
    products = [
        conv_rows(
            part.transpose(3, 1, 2, 0),
            _weighted(column, neighbours).transpose(1, 2, 0, 3),
            padding,
            precision,
        )
        for part, column in zip(parts, _OUTPUT.T, strict=True)
    ]
    gradient = jnp.concatenate([_weighted(column, products) for column in _KERNEL.T], axis=2)
    return gradient.transpose(1, 2, 0, 3)


def conv_rows(images, kernel, padding, precision=None):
    """Convolves [B, H, W, I] images with an [h, 1, I, O] kernel to [B, H', W, O].

    Args:
      padding: ((low, high), ...) in pixels, of which the first pair counts, that of the height.
      precision: see `lax.conv_general_dilated`.
    """
    return lax.conv_general_dilated(
        images, kernel, (1, 1), (padding[0], (0, 0)), dimension_numbers=_NHWC, precision=precision
    )


def every_fourth(x, width, low=0, overlap=0):
    """Returns x[:, :, 0::4], x[:, :, 1::4], ..., as many as a tile and its overlap are wide.

    Args:
      x: [B, H, W, C].
      width: number of outputs, of which a tile holds four.
      low: pixels of zeros in front of the width; behind it there are as many as the last tile
        lacks.
      overlap: pixels that a tile reaches into the next one.

    Returns:
      4 + overlap of [B, H, ceil(width / 4), C].
    """
    reach = _tiles(width) * TILE + overlap
    missing = reach - x.shape[2] - low
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), (low, missing, 0), (0, 0, 0)])
    span = reach - TILE - overlap + 1
    return [lax.slice_in_dim(x, i, i + span, TILE, axis=2) for i in range(TILE + overlap)]


def interleaved(x, width):
    """Returns [B, H, width, O] of [B, H, ceil(width / 4), 4 * O], neighbours one after another."""
    batch, height, tiles, features = x.shape
    return x.reshape(batch, height, tiles * TILE, features // TILE)[:, :, :width]


def _weighted(weights, arrays):
    """Returns the sum of arrays times numbers; zeros cost nothing."""
    terms = [
        x if weight == 1 else -x if weight == -1 else jnp.asarray(weight, x.dtype) * x
        for weight, x in zip(weights, arrays, strict=True)
        if weight
    ]
    return sum(terms[1:], terms[0])
