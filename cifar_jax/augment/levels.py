"""Pillow's ImageOps and ImageEnhance on a batch: pure arithmetic on grey levels, nothing random.

Images are [B, H, W, 3] uint8. What maps each grey level of a channel to another is a table
[B, C, 256] uint8, looked up once however many operations chose among them. Equal to Pillow but
for single grey levels: it computes `autocontrast` in double precision, and so does its C for
blends on some machines.
"""

import jax
import jax.numpy as jnp
import numpy as np

LEVELS = np.arange(256, dtype=np.int32)


def histogram(images: jax.Array) -> jax.Array:
    """Counts the grey levels of each channel, [B, C, 256] int32."""

    def count(values):
        return jnp.zeros(256, jnp.int32).at[values].add(1, mode="promise_in_bounds")

    batch, height, width, channels = images.shape
    values = images.astype(jnp.int32).reshape(batch, height * width, channels)
    return jax.vmap(jax.vmap(count, in_axes=1))(values)


def look_up(tables: jax.Array, images: jax.Array) -> jax.Array:
    """Maps the grey levels of each channel by tables [B, C, 256]."""

    def read(table, values):
        return table.at[values].get(mode="promise_in_bounds")

    values = images.astype(jnp.int32)
    return jax.vmap(jax.vmap(read, in_axes=(0, -1), out_axes=-1))(tables, values)


def invert() -> jax.Array:
    """The table of 255 minus the level, [256]; so do all that take no batch."""
    return (255 - LEVELS).astype(jnp.uint8)


def posterize(bits: jax.Array) -> jax.Array:
    """The tables that keep the highest bits of each level, [B, 1, 256]; bits: [B] int32, 1 to 8."""
    low = 8 - bits[:, None, None]
    return ((LEVELS >> low) << low).astype(jnp.uint8)


def solarize(threshold: jax.Array) -> jax.Array:
    """The tables that invert levels from `threshold` [B] on, [B, 1, 256]."""
    return jnp.where(threshold[:, None, None] > LEVELS, LEVELS, 255 - LEVELS).astype(jnp.uint8)


def brightness(factor: jax.Array) -> jax.Array:
    """The tables of a blend with black, [B, 1, 256]; factor: [B] float32."""
    return blend(jnp.zeros_like(LEVELS), LEVELS, factor[:, None, None])


def contrast(images: jax.Array, factor: jax.Array) -> jax.Array:
    """The tables of a blend with the image's mean grey, [B, 1, 256]; factor: [B] float32."""
    size = images.shape[1] * images.shape[2]
    total = jnp.sum(grey(images), axis=(1, 2))
    mean = (2 * total + size) // (2 * size)
    return blend(mean[:, None, None], LEVELS, factor[:, None, None])


def autocontrast(histogram: jax.Array) -> jax.Array:
    """The tables that stretch each channel to 0 to 255, [B, C, 256]."""
    found = histogram > 0
    low = jnp.argmax(found, axis=-1, keepdims=True)
    high = 255 - jnp.argmax(found[..., ::-1], axis=-1, keepdims=True)
    stretched = jnp.clip((LEVELS - low) * 255 // jnp.maximum(high - low, 1), 0, 255)
    return jnp.where(high > low, stretched, LEVELS).astype(jnp.uint8)


def equalize(histogram: jax.Array) -> jax.Array:
    """The tables that spread each channel's levels evenly, [B, C, 256]."""
    num_pixels = jnp.sum(histogram, axis=-1, keepdims=True)
    last = 255 - jnp.argmax(histogram[..., ::-1] > 0, axis=-1, keepdims=True)
    step = (num_pixels - jnp.take_along_axis(histogram, last, axis=-1)) // 255
    below = jnp.cumsum(histogram, axis=-1) - histogram
    spread = jnp.minimum((step // 2 + below) // jnp.maximum(step, 1), 255)
    return jnp.where(step > 0, spread, LEVELS).astype(jnp.uint8)


def grey(images: jax.Array) -> jax.Array:
    """The luminance of ITU-R 601, rounded: Pillow's mode L, [B, H, W] int32."""
    weights = jnp.array([19595, 38470, 7471])
    return (jnp.sum(images * weights, axis=-1) + 32768) >> 16


def smooth(images: jax.Array) -> jax.Array:
    """Pillow's SMOOTH: the mean of 3x3 pixels, the middle one five times; the border stays."""
    x = jnp.asarray(images, jnp.int32)
    rows = x[:, :-2] + x[:, 1:-1] + x[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:] + 4 * x[:, 1:-1, 1:-1]
    return x.at[:, 1:-1, 1:-1].set((2 * total + 13) // 26)


def blend(degenerate: jax.Array, image: jax.Array, factor: jax.Array) -> jax.Array:
    """Goes from `degenerate` by `factor` towards `image`, and beyond it above 1; uint8, cut off."""
    degenerate = degenerate.astype(jnp.float32)
    moved = degenerate + factor * (image.astype(jnp.float32) - degenerate)
    return jnp.clip(moved, 0, 255).astype(jnp.uint8)
