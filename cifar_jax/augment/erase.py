"""Boxes that hide a part of the image."""

import jax
import jax.numpy as jnp

from cifar_jax.augment.arguments import grey, number, span, whole

# The papers' zeros come after normalisation: the mean colour. CIFAR-10's is (125, 123, 114) and
# CIFAR-100's (129, 124, 112).
MEAN = (127, 124, 113)

_ATTEMPTS = 10


def cutout(
    key: jax.Array, images: jax.Array, size: int = 16, count: int = 1, fill=MEAN
) -> jax.Array:
    """Hides squares centred anywhere, so that they may reach over the border.

    DeVries and Taylor (2017): "Improved Regularization of Convolutional Neural Networks with
    Cutout", with 16 pixels for CIFAR-10 and 8 for CIFAR-100.

    Args:
      key: [] typed key.
      images: [B, H, W, C] in [0, 255], any dtype.
      size: side of a square in pixels.
      count: squares per image; they may overlap.
      fill: grey level, one for all channels or one for each.
    """
    whole("cutout", size, 0, "pixels")
    whole("cutout's count", count, 0)
    batch, height, width, channels = images.shape
    fill = jnp.array(grey("cutout's fill", fill, channels), images.dtype)
    centres = jax.random.randint(key, (batch, count, 2), 0, jnp.array([height, width]))
    top, left = jnp.moveaxis(centres - size // 2, -1, 0)
    hidden = jnp.any(boxes(top, left, size, size, height, width), axis=1)
    return jnp.where(hidden[..., None], fill, images)


def random_erasing(
    key: jax.Array,
    images: jax.Array,
    probability: float = 0.5,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    value=MEAN,
) -> jax.Array:
    """Hides one rectangle that lies inside the image, with the given probability.

    Zhong et al. (2020), as torchvision's RandomErasing: area uniform in `scale`, log of the aspect
    ratio uniform; of ten boxes the first that is smaller than the image, and none if none is.

    Args:
      key: [] typed key.
      images: [B, H, W, C] in [0, 255], any dtype.
      probability: in [0, 1].
      scale: least and greatest share of the image's area.
      ratio: least and greatest height by width.
      value: grey level, one for all channels or one for each, or "random": of each pixel and
        channel its own, uniform in [0, 255].
    """
    number("random_erasing's probability", probability, 0, 1)
    scale = span("random_erasing's scale", scale, 0, 1)
    ratio = span("random_erasing's ratio", ratio, 0.01, 100)
    batch, height, width, channels = images.shape
    if value != "random":
        value = jnp.array(grey("random_erasing's value", value, channels), images.dtype)

    choose, size, place, noise = jax.random.split(key, 4)
    rows, columns = _draw_boxes(size, batch, height, width, scale, ratio)
    # Too large a box is drawn as none.
    room = jnp.stack([height + 1 - rows, width + 1 - columns], axis=-1)
    top, left = jax.random.randint(place, (batch, 2), 0, room).T
    hidden = boxes(top, left, rows, columns, height, width)
    hidden &= jax.random.bernoulli(choose, probability, (batch, 1, 1))
    if isinstance(value, str):
        value = jax.random.randint(noise, images.shape, 0, 256).astype(images.dtype)
    return jnp.where(hidden[..., None], value, images)


def _draw_boxes(key, count, height, width, scale, ratio) -> tuple[jax.Array, jax.Array]:
    """Heights and widths [count] of the first of ten boxes smaller than the image, or zeros."""
    low = jnp.array([scale[0], jnp.log(ratio[0])])
    high = jnp.array([scale[1], jnp.log(ratio[1])])
    drawn = jax.random.uniform(key, (count, _ATTEMPTS, 2), minval=low, maxval=high)
    area, aspect = height * width * drawn[..., 0], jnp.exp(drawn[..., 1])
    rows = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    columns = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (rows < height) & (columns < width)
    is_first = fits & (jnp.cumsum(fits, axis=1) == 1)
    return tuple(jnp.sum(jnp.where(is_first, x, 0), axis=1) for x in (rows, columns))


def boxes(top, left, rows, columns, height, width) -> jax.Array:
    """Returns where boxes [...] in pixels lie on an image, [..., H, W] bool."""
    top, left, rows, columns = (jnp.asarray(x)[..., None] for x in (top, left, rows, columns))
    i, j = jnp.arange(height), jnp.arange(width)
    in_rows = (top <= i) & (i < top + rows)
    in_columns = (left <= j) & (j < left + columns)
    return in_rows[..., :, None] & in_columns[..., None, :]
