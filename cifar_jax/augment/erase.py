"""Boxes that hide a part of the image."""

import jax
import jax.numpy as jnp

from cifar_jax.augment.arguments import grey, number, span, whole

# The papers' zeros come after normalisation: the mean colour. CIFAR-10's is (125, 123, 114) and
# CIFAR-100's (129, 124, 112).
MEAN = (127, 124, 113)

_ATTEMPTS = 10


def cutout(
    keys: jax.Array, images: jax.Array, size: int = 16, count: int = 1, fill=MEAN
) -> jax.Array:
    """Hides squares centred anywhere, so that they may reach over the border.

    DeVries and Taylor (2017): "Improved Regularization of Convolutional Neural Networks with
    Cutout", with 16 pixels for CIFAR-10 and 8 for CIFAR-100.

    Args:
      keys: [B] typed keys.
      images: [B, H, W, C] in [0, 255], any dtype.
      size: side of a square in pixels.
      count: squares per image; they may overlap.
      fill: grey level, one for all channels or one for each.
    """
    whole("cutout", size, 0, "pixels")
    whole("cutout's count", count, 0)
    height, width, channels = images.shape[1:]
    fill = jnp.array(grey("cutout's fill", fill, channels), images.dtype)
    limits = jnp.array([height, width])

    def cover(key):
        corners = jax.random.randint(key, (count, 2), 0, limits) - size // 2
        return jnp.any(boxes(corners[:, 0], corners[:, 1], size, size, height, width), axis=0)

    return jnp.where(jax.vmap(cover)(keys)[..., None], fill, images)


def random_erasing(
    keys: jax.Array,
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
      keys: [B] typed keys.
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
    height, width, channels = images.shape[1:]
    if value != "random":
        value = jnp.array(grey("random_erasing's value", value, channels), images.dtype)

    def erase(key, image):
        choose, size, place, noise = jax.random.split(key, 4)
        rows, columns = _draw_box(size, height, width, scale, ratio)
        # Too large a box is drawn as none.
        room = jnp.array([height + 1 - rows, width + 1 - columns])
        top, left = jax.random.randint(place, (2,), 0, room)
        hidden = boxes(top, left, rows, columns, height, width)
        hidden &= jax.random.bernoulli(choose, probability)
        hide = value
        if isinstance(value, str):
            hide = jax.random.randint(noise, image.shape, 0, 256).astype(image.dtype)
        return jnp.where(hidden[..., None], hide, image)

    return jax.vmap(erase)(keys, images)


def _draw_box(key, height, width, scale, ratio) -> tuple[jax.Array, jax.Array]:
    """Height and width of the first box of ten that is smaller than the image, or zeros."""
    low = jnp.array([scale[0], jnp.log(ratio[0])])
    high = jnp.array([scale[1], jnp.log(ratio[1])])
    drawn = jax.random.uniform(key, (_ATTEMPTS, 2), minval=low, maxval=high)
    area, aspect = height * width * drawn[:, 0], jnp.exp(drawn[:, 1])
    rows = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    columns = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (rows < height) & (columns < width)
    first = jnp.argmax(fits)
    return tuple(jnp.where(fits[first], x[first], 0) for x in (rows, columns))


def boxes(top, left, rows, columns, height, width) -> jax.Array:
    """Returns where boxes [...] in pixels lie on an image, [..., H, W] bool."""
    top, left, rows, columns = (jnp.asarray(x)[..., None] for x in (top, left, rows, columns))
    i, j = jnp.arange(height), jnp.arange(width)
    in_rows = (top <= i) & (i < top + rows)
    in_columns = (left <= j) & (j < left + columns)
    return in_rows[..., :, None] & in_columns[..., None, :]
