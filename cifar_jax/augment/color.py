"""Colours and grey levels, each image by a strength of its own; the arithmetic is in levels.py.

Whatever counts or maps grey levels wants whole ones, uint8: in a line of operations it stands
before those that interpolate. Only Keras' two, channel_shift and brightness, take any.
"""

import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.augment import levels
from cifar_jax.augment.arguments import number, span, whole, whole_levels
from cifar_jax.augment.geometry import flip


def channel_shift(key: jax.Array, images: jax.Array, reach: float = 20.0) -> jax.Array:
    """Adds one number to all channels of each image, uniform in +- `reach`.

    Keras' channel_shift_range: for all its name, one number for all channels, and the result is
    cut off at the image's own least and greatest value.

    Args:
      key: [] typed key.
      images: [B, H, W, C] in [0, 255], any dtype.
      reach: grey levels, from 0 to 255.

    Returns:
      float32.
    """
    number("channel_shift", reach, 0, 255, "grey levels")
    # A look-up that changes nothing, and one reduction of pairs: with two of what stands before,
    # XLA's CPU compiler computes that inside each, and the full Keras set took 13.3 ms a batch of
    # 128 for 0.66 (benchmarks/results/augmentation.jsonl).
    images = flip(key, images.astype(jnp.float32), probability=0.0)
    least, greatest = jax.lax.reduce(
        (images, images),
        (jnp.float32(jnp.inf), jnp.float32(-jnp.inf)),
        lambda a, b: (jnp.minimum(a[0], b[0]), jnp.maximum(a[1], b[1])),
        dimensions=(1, 2, 3),
    )
    shifted = images + _uniform(key, images, -reach, reach)[:, None, None, None]
    return jnp.clip(shifted, least[:, None, None, None], greatest[:, None, None, None])


def brightness(key: jax.Array, images: jax.Array, low: float = 0.8, high: float = 1.2) -> jax.Array:
    """Multiplies each image by a factor uniform in [low, high]: Keras' brightness_range.

    By way of Pillow, as Keras: grey levels are cut down to whole ones before and after.

    Args:
      key: [] typed key.
      images: [B, H, W, C] in [0, 255], any dtype.
      low: least factor, 0 for black.
      high: greatest factor.
    """
    span("brightness", (low, high), 0, 100)
    cut_down = images.astype(jnp.uint8)
    factor = _uniform(key, images, low, high)[:, None, None, None]
    return levels.blend(jnp.zeros_like(cut_down), cut_down, factor).astype(images.dtype)


def contrast(key: jax.Array, images: jax.Array, low: float = 0.8, high: float = 1.2) -> jax.Array:
    """Moves each image from its mean grey (0) to itself (1) and beyond, uniform in [low, high].

    Pillow's ImageEnhance.Contrast.

    Args:
      key: [] typed key.
      images: [B, H, W, 3] uint8.
      low: least factor.
      high: greatest factor.
    """
    whole_levels("contrast", images)
    span("contrast", (low, high), 0, 100)
    tables = levels.contrast(images, _uniform(key, images, low, high))
    return levels.look_up(_tables(tables, 3), images)


def saturation(key: jax.Array, images: jax.Array, low: float = 0.8, high: float = 1.2) -> jax.Array:
    """Moves each image from black and white (0) to itself (1) and beyond, uniform in [low, high].

    Pillow's ImageEnhance.Color; arguments as in `contrast`.
    """
    whole_levels("saturation", images)
    span("saturation", (low, high), 0, 100)
    factor = _uniform(key, images, low, high)[:, None, None, None]
    return levels.blend(levels.grey(images)[..., None], images, factor)


def sharpness(key: jax.Array, images: jax.Array, low: float = 0.8, high: float = 1.2) -> jax.Array:
    """Moves each image from smoothed (0) to itself (1) and beyond, uniform in [low, high].

    Pillow's ImageEnhance.Sharpness; arguments as in `contrast`.
    """
    whole_levels("sharpness", images)
    span("sharpness", (low, high), 0, 100)
    factor = _uniform(key, images, low, high)[:, None, None, None]
    return levels.blend(levels.smooth(images), images, factor)


def autocontrast(key: jax.Array, images: jax.Array, probability: float = 0.5) -> jax.Array:
    """Stretches each channel to 0 to 255, with the given probability: Pillow's ImageOps.

    Args:
      key: [] typed key.
      images: [B, H, W, 3] uint8.
      probability: in [0, 1].
    """
    whole_levels("autocontrast", images)
    tables = levels.autocontrast(levels.histogram(images))
    return _some("autocontrast", key, images, tables, probability)


def equalize(key: jax.Array, images: jax.Array, probability: float = 0.5) -> jax.Array:
    """Spreads each channel's levels evenly; source and arguments as in `autocontrast`."""
    whole_levels("equalize", images)
    tables = levels.equalize(levels.histogram(images))
    return _some("equalize", key, images, tables, probability)


def invert(key: jax.Array, images: jax.Array, probability: float = 0.5) -> jax.Array:
    """Turns each level into 255 minus it; source and arguments as in `autocontrast`."""
    whole_levels("invert", images)
    return _some("invert", key, images, levels.invert()[None, None], probability)


def posterize(
    key: jax.Array, images: jax.Array, bits: int = 4, probability: float = 0.5
) -> jax.Array:
    """Keeps the highest bits, 1 to 8, of each level; the rest as in `autocontrast`."""
    whole_levels("posterize", images)
    number("posterize", whole("posterize", bits, 1, "bits"), 1, 8, "bits")
    return _some("posterize", key, images, levels.posterize(jnp.array([bits])), probability)


def solarize(
    key: jax.Array, images: jax.Array, threshold: float = 128, probability: float = 0.5
) -> jax.Array:
    """Inverts the levels from `threshold` on; the rest as in `autocontrast`."""
    whole_levels("solarize", images)
    number("solarize", threshold, 0, 256, "grey levels")
    return _some("solarize", key, images, levels.solarize(jnp.array([threshold])), probability)


def _uniform(key: jax.Array, images: jax.Array, low: float, high: float) -> jax.Array:
    return jax.random.uniform(key, images.shape[:1], minval=low, maxval=high)


def _tables(tables: jax.Array, channels: int) -> jax.Array:
    return jnp.broadcast_to(tables, (tables.shape[0], channels, 256))


def _some(name, key, images, tables, probability) -> jax.Array:
    """Maps the images that `probability` chooses by tables that broadcast to [B, C, 256]."""
    number(f"{name}'s probability", probability, 0, 1)
    chosen = jax.random.bernoulli(key, probability, images.shape[:1])
    tables = jnp.where(chosen[:, None, None], tables, levels.LEVELS.astype(np.uint8))
    return levels.look_up(_tables(tables, images.shape[-1]), images)
