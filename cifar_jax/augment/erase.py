"""Operations that erase rectangles of the image."""

import jax
import jax.numpy as jnp

from cifar_jax.augment.arguments import (
    check_integer,
    check_number,
    check_pixel_value,
    check_range,
)

# The papers fill with zeros after normalization, that is, with the mean color: (125, 123, 114) for
# CIFAR-10 and (129, 124, 112) for CIFAR-100. This is the average of the two.
MEAN = (127, 124, 113)

_ATTEMPTS = 10


def cutout(
    key: jax.Array, images: jax.Array, size: int = 16, count: int = 1, fill=MEAN
) -> jax.Array:
    """Erases squares with centers uniform over the image; the border may cut them off.

    DeVries and Taylor (2017): "Improved Regularization of Convolutional Neural Networks with
    Cutout", which uses 16 pixels for CIFAR-10 and 8 for CIFAR-100.

    Args:
      key: [] typed key.
      images: [B, H, W, C] in [0, 255], any dtype.
      size: Side length of a square in pixels.
      count: Number of squares per image; they may overlap.
      fill: Pixel value in [0, 255], one number for all channels or one for each.
    """
    check_integer("cutout", size, 0, "pixels")
    check_integer("cutout's count", count, 0)
    batch, height, width, channels = images.shape
    fill = jnp.array(check_pixel_value("cutout's fill", fill, channels), images.dtype)
    centers = jax.random.randint(key, (batch, count, 2), 0, jnp.array([height, width]))
    top, left = jnp.moveaxis(centers - size // 2, -1, 0)
    is_erased = jnp.any(box_masks(top, left, size, size, height, width), axis=1)
    return jnp.where(is_erased[..., None], fill, images)


def random_erasing(
    key: jax.Array,
    images: jax.Array,
    probability: float = 0.5,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    value=MEAN,
) -> jax.Array:
    """Erases one rectangle inside each image with the given probability.

    Zhong et al. (2020), as in torchvision's RandomErasing: the area is uniform in `scale` and the
    logarithm of the aspect ratio is uniform. Ten boxes are drawn, and the first one that is smaller
    than the image is used; if there is none, the image is unchanged.

    Args:
      key: [] typed key.
      images: [B, H, W, C] in [0, 255], any dtype.
      probability: Probability for each image, in [0, 1].
      scale: Min and max of the rectangle's area, as a fraction of the image's area.
      ratio: Min and max of the aspect ratio, height / width.
      value: Pixel value in [0, 255], one number for all channels or one for each; or "random",
        which draws each pixel and channel uniformly from [0, 255].
    """
    probability = check_number("random_erasing's probability", probability, 0, 1)
    scale = check_range("random_erasing's scale", scale, 0, 1)
    ratio = check_range("random_erasing's ratio", ratio, 0.01, 100)
    batch, height, width, channels = images.shape
    if value != "random":
        value = check_pixel_value("random_erasing's value", value, channels)
        value = jnp.array(value, images.dtype)

    choice_key, size_key, position_key, noise_key = jax.random.split(key, 4)
    rows, columns = _draw_boxes(size_key, batch, height, width, scale, ratio)
    # Boxes that do not fit have size 0, so every box can be placed.
    num_positions = jnp.stack([height + 1 - rows, width + 1 - columns], axis=-1)
    top, left = jax.random.randint(position_key, (batch, 2), 0, num_positions).T
    is_erased = box_masks(top, left, rows, columns, height, width)
    is_erased &= jax.random.bernoulli(choice_key, probability, (batch, 1, 1))
    if isinstance(value, str):
        value = jax.random.randint(noise_key, images.shape, 0, 256).astype(images.dtype)
    return jnp.where(is_erased[..., None], value, images)


def _draw_boxes(key, count, height, width, scale, ratio) -> tuple[jax.Array, jax.Array]:
    """Returns the height and width of the first box that fits, [count] each; 0 if none fits."""
    low = jnp.array([scale[0], jnp.log(ratio[0])])
    high = jnp.array([scale[1], jnp.log(ratio[1])])
    drawn = jax.random.uniform(key, (count, _ATTEMPTS, 2), minval=low, maxval=high)
    area, aspect = height * width * drawn[..., 0], jnp.exp(drawn[..., 1])
    rows = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
    columns = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
    fits = (rows < height) & (columns < width)
    is_first = fits & (jnp.cumsum(fits, axis=1) == 1)
    return tuple(jnp.sum(jnp.where(is_first, x, 0), axis=1) for x in (rows, columns))


def box_masks(top, left, rows, columns, height, width) -> jax.Array:
    """Returns masks [..., H, W] that are true inside the given boxes.

    Args:
      top, left: [...], the first row and column of each box, which may lie outside the image.
      rows, columns: [...] or [], the size of each box in pixels.
      height, width: The size of the image in pixels.
    """
    top, left, rows, columns = (jnp.asarray(x)[..., None] for x in (top, left, rows, columns))
    i, j = jnp.arange(height), jnp.arange(width)
    in_rows = (top <= i) & (i < top + rows)
    in_columns = (left <= j) & (j < left + columns)
    return in_rows[..., :, None] & in_columns[..., None, :]
