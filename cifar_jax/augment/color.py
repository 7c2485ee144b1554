"""Color operations with a random strength for each image. The arithmetic is in levels.py.

Operations that count or map pixel values require uint8, so they must come before operations that
interpolate. Only the two from Keras, channel_shift and brightness, accept any dtype.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.augment import levels
from cifar_jax.augment.arguments import check_integer, check_number, check_range, check_uint8_rgb
from cifar_jax.augment.geometry import flip


def channel_shift(key: jax.Array, images: jax.Array, reach: float = 20.0) -> jax.Array:
    """Adds a random number, uniform in [-reach, reach], to all pixel values of each image.

    Equals Keras's channel_shift_range: despite the name, all channels are shifted by the same
    number, and the result is clipped to the image's original minimum and maximum.

    Args:
      key: [] typed key.
      images: [B, H, W, C] in [0, 255], any dtype.
      reach: The maximum shift in either direction, in [0, 255].

    Returns:
      [B, H, W, C] float32.
    """
    reach = check_number("channel_shift", reach, 0, 255)
    # The flip with probability 0, and the single reduction for both extremes, keep XLA's CPU
    # compiler from recomputing the preceding operations inside two reductions. With neither, the
    # full set of Keras operations took 13.3 ms instead of 0.66 ms per batch of 128
    # (benchmarks/results/augmentation.jsonl).
    images = flip(key, images.astype(jnp.float32), probability=0.0)
    smallest, largest = jax.lax.reduce(
        (images, images),
        (jnp.float32(jnp.inf), jnp.float32(-jnp.inf)),
        lambda a, b: (jnp.minimum(a[0], b[0]), jnp.maximum(a[1], b[1])),
        dimensions=(1, 2, 3),
    )
    shifted = images + _uniform(key, images, -reach, reach)[:, None, None, None]
    return jnp.clip(shifted, smallest[:, None, None, None], largest[:, None, None, None])


def brightness(key: jax.Array, images: jax.Array, low: float = 0.8, high: float = 1.2) -> jax.Array:
    """Multiplies each image by a random factor, uniform in [low, high].

    Equals Keras's brightness_range, which uses Pillow: pixel values are truncated to integers
    before and after.

    Args:
      key: [] typed key.
      images: [B, H, W, C] in [0, 255], any dtype.
      low: The smallest factor; 0 gives a black image.
      high: The largest factor.
    """
    low, high = check_range("brightness", (low, high), 0, 100)
    truncated = images.astype(jnp.uint8)
    factor = _uniform(key, images, low, high)[:, None, None, None]
    return levels.blend(jnp.zeros_like(truncated), truncated, factor).astype(images.dtype)


def contrast(key: jax.Array, images: jax.Array, low: float = 0.8, high: float = 1.2) -> jax.Array:
    """Changes the contrast of each image by a random factor, uniform in [low, high].

    Equals Pillow's ImageEnhance.Contrast: factor 0 gives a uniform gray of the image's mean
    luminance, 1 the original image, and larger factors extrapolate.

    Args:
      key: [] typed key.
      images: [B, H, W, 3] uint8.
      low: The smallest factor.
      high: The largest factor.
    """
    check_uint8_rgb("contrast", images)
    low, high = check_range("contrast", (low, high), 0, 100)
    tables = levels.contrast(images, _uniform(key, images, low, high))
    return levels.apply_tables(_for_each_channel(tables, 3), images)


def saturation(key: jax.Array, images: jax.Array, low: float = 0.8, high: float = 1.2) -> jax.Array:
    """Changes the saturation of each image by a random factor, uniform in [low, high].

    Equals Pillow's ImageEnhance.Color: factor 0 gives a grayscale image, 1 the original image, and
    larger factors extrapolate. The arguments are those of `contrast`.
    """
    check_uint8_rgb("saturation", images)
    low, high = check_range("saturation", (low, high), 0, 100)
    factor = _uniform(key, images, low, high)[:, None, None, None]
    return levels.blend(levels.luminance(images)[..., None], images, factor)


def sharpness(key: jax.Array, images: jax.Array, low: float = 0.8, high: float = 1.2) -> jax.Array:
    """Changes the sharpness of each image by a random factor, uniform in [low, high].

    Equals Pillow's ImageEnhance.Sharpness: factor 0 gives a smoothed image, 1 the original image,
    and larger factors extrapolate. The arguments are those of `contrast`.
    """
    check_uint8_rgb("sharpness", images)
    low, high = check_range("sharpness", (low, high), 0, 100)
    factor = _uniform(key, images, low, high)[:, None, None, None]
    return levels.blend(levels.smooth(images), images, factor)


def autocontrast(key: jax.Array, images: jax.Array, probability: float = 0.5) -> jax.Array:
    """Stretches each channel to [0, 255] with the given probability.

    Equals Pillow's ImageOps.autocontrast.

    Args:
      key: [] typed key.
      images: [B, H, W, 3] uint8.
      probability: Probability for each image, in [0, 1].
    """
    check_uint8_rgb("autocontrast", images)
    tables = levels.autocontrast(levels.histogram(images))
    return _apply_with_probability("autocontrast", key, images, tables, probability)


def equalize(key: jax.Array, images: jax.Array, probability: float = 0.5) -> jax.Array:
    """Equalizes the histogram of each channel with the given probability.

    Equals Pillow's ImageOps.equalize. The arguments are those of `autocontrast`.
    """
    check_uint8_rgb("equalize", images)
    tables = levels.equalize(levels.histogram(images))
    return _apply_with_probability("equalize", key, images, tables, probability)


def invert(key: jax.Array, images: jax.Array, probability: float = 0.5) -> jax.Array:
    """Replaces each pixel value v with 255 - v, with the given probability.

    Equals Pillow's ImageOps.invert. The arguments are those of `autocontrast`.
    """
    check_uint8_rgb("invert", images)
    return _apply_with_probability("invert", key, images, levels.invert()[None, None], probability)


def posterize(
    key: jax.Array, images: jax.Array, bits: int = 4, probability: float = 0.5
) -> jax.Array:
    """Keeps the highest `bits` bits of each pixel value, with the given probability.

    Equals Pillow's ImageOps.posterize.

    Args:
      key: [] typed key.
      images: [B, H, W, 3] uint8.
      bits: The number of bits to keep, from 1 to 8.
      probability: Probability for each image, in [0, 1].
    """
    check_uint8_rgb("posterize", images)
    check_integer("posterize", bits, 1, "bits")
    check_number("posterize", bits, 1, 8, "bits")
    tables = levels.posterize(jnp.array([bits]))
    return _apply_with_probability("posterize", key, images, tables, probability)


def solarize(
    key: jax.Array, images: jax.Array, threshold: float = 128, probability: float = 0.5
) -> jax.Array:
    """Inverts the pixel values that are at least `threshold`, with the given probability.

    Equals Pillow's ImageOps.solarize.

    Args:
      key: [] typed key.
      images: [B, H, W, 3] uint8.
      threshold: The lowest pixel value that is inverted, in [0, 256].
      probability: Probability for each image, in [0, 1].
    """
    check_uint8_rgb("solarize", images)
    threshold = check_number("solarize", threshold, 0, 256)
    tables = levels.solarize(jnp.array([threshold]))
    return _apply_with_probability("solarize", key, images, tables, probability)


def _uniform(key: jax.Array, images: jax.Array, low: float, high: float) -> jax.Array:
    return jax.random.uniform(key, images.shape[:1], minval=low, maxval=high)


def _for_each_channel(tables: jax.Array, channels: int) -> jax.Array:
    """Broadcasts tables [B, 1 or C, 256] to [B, C, 256]."""
    return jnp.broadcast_to(tables, (tables.shape[0], channels, 256))


def _apply_with_probability(name, key, images, tables, probability) -> jax.Array:
    """Applies tables to each image with the given probability; they broadcast to [B, C, 256]."""
    probability = check_number(f"{name}'s probability", probability, 0, 1)
    chosen = jax.random.bernoulli(key, probability, images.shape[:1])
    tables = jnp.where(chosen[:, None, None], tables, levels.PIXEL_VALUES.astype(np.uint8))
    return levels.apply_tables(_for_each_channel(tables, images.shape[-1]), images)
