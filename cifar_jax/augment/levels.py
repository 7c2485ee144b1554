"""Pillow's ImageOps and ImageEnhance on a batch: deterministic arithmetic on pixel values.

Images are [B, H, W, 3] uint8. An operation that maps each pixel value of a channel to another one
is represented by a table, [B, C, 256] uint8. If images use different operations, their tables are
selected first, and a single lookup applies them.

Results equal Pillow's, except that a few pixel values differ by 1: Pillow computes `autocontrast`
in double precision, and on some machines its C code does so for blends, too.
"""

import jax
import jax.numpy as jnp
import numpy as np

PIXEL_VALUES = np.arange(256, dtype=np.int32)


def histogram(images: jax.Array) -> jax.Array:
    """Returns the histogram of each channel: [B, C, 256] int32."""

    def count(values):
        return jnp.zeros(256, jnp.int32).at[values].add(1, mode="promise_in_bounds")

    batch, height, width, channels = images.shape
    values = images.astype(jnp.int32).reshape(batch, height * width, channels)
    return jax.vmap(jax.vmap(count, in_axes=1))(values)


def apply_tables(tables: jax.Array, images: jax.Array) -> jax.Array:
    """Maps the pixel values of each channel by tables [B, C, 256]."""

    def look_up(table, values):
        return table.at[values].get(mode="promise_in_bounds")

    values = images.astype(jnp.int32)
    return jax.vmap(jax.vmap(look_up, in_axes=(0, -1), out_axes=-1))(tables, values)


def invert() -> jax.Array:
    """Returns the table [256] that maps v to 255 - v."""
    return (255 - PIXEL_VALUES).astype(jnp.uint8)


def posterize(bits: jax.Array) -> jax.Array:
    """Returns tables [B, 1, 256] that keep the highest bits of each pixel value.

    Args:
      bits: [B] int32, the number of bits to keep, from 1 to 8.
    """
    low = 8 - bits[:, None, None]
    return ((PIXEL_VALUES >> low) << low).astype(jnp.uint8)


def solarize(threshold: jax.Array) -> jax.Array:
    """Returns tables [B, 1, 256] that invert pixel values of at least `threshold` [B]."""
    is_below = threshold[:, None, None] > PIXEL_VALUES
    return jnp.where(is_below, PIXEL_VALUES, 255 - PIXEL_VALUES).astype(jnp.uint8)


def brightness(factor: jax.Array) -> jax.Array:
    """Returns tables [B, 1, 256] that blend the image with black.

    Args:
      factor: [B] float32, see `blend`.
    """
    return blend(jnp.zeros_like(PIXEL_VALUES), PIXEL_VALUES, factor[:, None, None])


def contrast(images: jax.Array, factor: jax.Array) -> jax.Array:
    """Returns tables [B, 1, 256] that blend the image with its mean luminance.

    Args:
      images: [B, H, W, 3] uint8.
      factor: [B] float32, see `blend`.
    """
    size = images.shape[1] * images.shape[2]
    total = jnp.sum(luminance(images), axis=(1, 2))
    mean = (2 * total + size) // (2 * size)
    return blend(mean[:, None, None], PIXEL_VALUES, factor[:, None, None])


def autocontrast(histogram: jax.Array) -> jax.Array:
    """Returns tables [B, C, 256] that stretch each channel to [0, 255]."""
    occurs = histogram > 0
    low = jnp.argmax(occurs, axis=-1, keepdims=True)
    high = 255 - jnp.argmax(occurs[..., ::-1], axis=-1, keepdims=True)
    stretched = jnp.clip((PIXEL_VALUES - low) * 255 // jnp.maximum(high - low, 1), 0, 255)
    return jnp.where(high > low, stretched, PIXEL_VALUES).astype(jnp.uint8)


def equalize(histogram: jax.Array) -> jax.Array:
    """Returns tables [B, C, 256] that equalize the histogram of each channel."""
    num_pixels = jnp.sum(histogram, axis=-1, keepdims=True)
    last = 255 - jnp.argmax(histogram[..., ::-1] > 0, axis=-1, keepdims=True)
    step = (num_pixels - jnp.take_along_axis(histogram, last, axis=-1)) // 255
    below = jnp.cumsum(histogram, axis=-1) - histogram
    spread = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, spread, PIXEL_VALUES).astype(jnp.uint8)


def luminance(images: jax.Array) -> jax.Array:
    """Returns the rounded ITU-R 601 luminance, like Pillow's mode L: [B, H, W] int32."""
    weights = jnp.array([19595, 38470, 7471])
    return (jnp.sum(images * weights, axis=-1) + 32768) >> 16


def smooth(images: jax.Array) -> jax.Array:
    """Applies Pillow's SMOOTH filter: a 3x3 mean with weight 5 at the center.

    Border pixels are unchanged, as in Pillow.

    Returns:
      [B, H, W, 3] int32.
    """
    x = jnp.asarray(images, jnp.int32)
    rows = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * x[:, 1:-1, 1:-1]
    return x.at[:, 1:-1, 1:-1].set((2 * total + 13) // 26)


def blend(degenerate: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    """Interpolates from `degenerate` (factor 0) to `image` (factor 1) or extrapolates beyond it.

    Returns:
      uint8, clipped to [0, 255].
    """
    degenerate = degenerate.astype(jnp.float32)
    blended = degenerate + factor * (image.astype(jnp.float32) - degenerate)
    return jnp.clip(blended, 0, 255).astype(jnp.uint8)
