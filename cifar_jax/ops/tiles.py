"""Rows of four neighboring outputs, which `winograd` and `stem` compute together."""

import jax.numpy as jnp
from jax import lax

from cifar_jax.ops.options import NHWC

# Number of neighboring outputs in a tile.
TILE = 4


def num_tiles(width: int) -> int:
    """Returns how many tiles cover a row of `width` outputs."""
    return -(-width // TILE)


def every_fourth(x, width, low=0, overlap=0):
    """Returns the slices x[:, :, 0::4], x[:, :, 1::4], ..., one per column of a tile's input.

    Args:
      x: [B, H, W, C].
      width: number of outputs; each tile has four.
      low: columns of zeros added on the left; on the right, enough are added to complete the last
        tile.
      overlap: number of columns that the inputs of a tile share with the next tile.

    Returns:
      A list of 4 + overlap arrays [B, H, ceil(width / 4), C].
    """
    reach = num_tiles(width) * TILE + overlap
    missing = reach - x.shape[2] - low
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), (low, missing, 0), (0, 0, 0)])
    span = reach - TILE - overlap + 1
    return [lax.slice_in_dim(x, i, i + span, TILE, axis=2) for i in range(TILE + overlap)]


def interleaved(x, width):
    """Interleaves the outputs of the tiles: [B, H, ceil(width / 4), 4 * O] to [B, H, width, O]."""
    batch, height, tiles, features = x.shape
    return x.reshape(batch, height, tiles * TILE, features // TILE)[:, :, :width]


def conv_rows(images, kernel, padding, precision=None):
    """Convolves along the height: [B, H, W, I] images with an [h, 1, I, O] kernel to [B, H', W, O].

    Args:
      images: [B, H, W, I].
      kernel: [h, 1, I, O].
      padding: ((low, high), ...) in pixels; only the first pair, that of the height, is used.
      precision: precision of the products, see `lax.conv_general_dilated`.
    """
    return lax.conv_general_dilated(
        images, kernel, (1, 1), (padding[0], (0, 0)), dimension_numbers=NHWC, precision=precision
    )
