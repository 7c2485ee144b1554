"""Affine transforms with interpolation, as in Keras's ImageDataGenerator.

`affine` composes all its transforms into one map from output pixels to real-valued input positions,
and samples the image once. The other operations are special cases of it. All return float32.
Bilinear sampling is four gathers of one pixel each; on a CPU, it was slower to pack neighbors into
one word, or to process rows and columns in separate passes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cifar_jax.augment.arguments import check_number
from cifar_jax.errors import unknown

INTERPOLATIONS = ("bilinear", "nearest")
FILLS = ("nearest", "constant", "reflect", "wrap")


class Draw(NamedTuple):
    """The parameters of the affine transform of each image; all [B] float32.

    The transform maps output positions to input positions, so the image content moves in the
    opposite direction.

    Attributes:
      down: Downward shift of the input positions in pixels, Keras's `ty`.
      right: Shift of the input positions to the right in pixels, Keras's `tx`.
      rotation: Angle in degrees, Keras's `theta`.
      shear: Angle in degrees.
      zoom_rows: Number of input rows per output row, Keras's `zy`; below 1 enlarges the image.
      zoom_columns: Number of input columns per output column, Keras's `zx`.
    """

    down: jax.Array
    right: jax.Array
    rotation: jax.Array
    shear: jax.Array
    zoom_rows: jax.Array
    zoom_columns: jax.Array


def affine(
    key: jax.Array,
    images: jax.Array,
    rotation: float = 0.0,
    width_shift: float = 0.0,
    height_shift: float = 0.0,
    shear: float = 0.0,
    zoom: float = 0.0,
    interpolation: str = "bilinear",
    fill: str = "nearest",
    value: float = 0.0,
) -> jax.Array:
    """Rotates, shifts, shears and zooms each image about its center in a single transform.

    Equals Keras's ImageDataGenerator, with the formula of `apply_affine_transform` in Keras 3. The
    package keras-preprocessing (last release: 1.1.2) transforms the transposed image, so its shear
    moves columns instead of rows. Keras 3 shifts images vertically by width_shift_range and
    horizontally by height_shift_range; here, width_shift is horizontal and height_shift is
    vertical. All parameters are drawn uniformly from their ranges.

    Args:
      key: [] typed key.
      images: [B, H, W, C], any dtype.
      rotation: Maximum angle in either direction, degrees in [0, 180].
      width_shift: Maximum horizontal shift in either direction, as a fraction of the width in
        [0, 1].
      height_shift: Maximum vertical shift in either direction, as a fraction of the height in
        [0, 1].
      shear: Maximum angle in either direction, degrees in [0, 89].
      zoom: Number z in [0, 0.99]; rows and columns are scaled by independent factors in
        [1 - z, 1 + z].
      interpolation: "bilinear" or "nearest".
      fill: How to fill pixels from outside the image, like the mode of that name in scipy.ndimage:
        "nearest" (repeats the edge pixels), "constant" (`value`), "reflect" (mirrors the image) or
        "wrap" (tiles the image).
      value: Pixel value in [0, 255] for fill "constant".

    Returns:
      [B, H, W, C] float32, in the range of `images`.

    Raises:
      UserError: If an argument is out of range or unknown.
    """
    drawn = draw(key, images.shape, rotation, width_shift, height_shift, shear, zoom)
    if interpolation not in INTERPOLATIONS:
        raise unknown("interpolation", interpolation, INTERPOLATIONS)
    if fill not in FILLS:
        raise unknown("fill", fill, FILLS)
    value = check_number("value", value, 0, 255)
    rows, columns = _source_positions(drawn, *images.shape[1:3])
    return _sample(images, rows, columns, interpolation, fill, value)


def shift(
    key: jax.Array,
    images: jax.Array,
    width: float = 0.1,
    height: float = 0.1,
    interpolation: str = "bilinear",
    fill: str = "nearest",
    value: float = 0.0,
) -> jax.Array:
    """Shifts each image by a real number of pixels: Keras's width_shift_range, height_shift_range.

    Each shift is uniform in [-x, x] times the image's size, where x is `width` or `height`. The
    other arguments are those of `affine`.
    """
    sampling = dict(interpolation=interpolation, fill=fill, value=value)
    return affine(key, images, width_shift=width, height_shift=height, **sampling)


def rotation(
    key: jax.Array,
    images: jax.Array,
    degrees: float = 15.0,
    interpolation: str = "bilinear",
    fill: str = "nearest",
    value: float = 0.0,
) -> jax.Array:
    """Rotates each image by an angle uniform in [-degrees, degrees]: Keras's rotation_range.

    The other arguments are those of `affine`.
    """
    sampling = dict(interpolation=interpolation, fill=fill, value=value)
    return affine(key, images, rotation=degrees, **sampling)


def shear(
    key: jax.Array,
    images: jax.Array,
    degrees: float = 10.0,
    interpolation: str = "bilinear",
    fill: str = "nearest",
    value: float = 0.0,
) -> jax.Array:
    """Shears each image by an angle uniform in [-degrees, degrees]: Keras's shear_range.

    The other arguments are those of `affine`.
    """
    sampling = dict(interpolation=interpolation, fill=fill, value=value)
    return affine(key, images, shear=degrees, **sampling)


def zoom(
    key: jax.Array,
    images: jax.Array,
    share: float = 0.1,
    interpolation: str = "bilinear",
    fill: str = "nearest",
    value: float = 0.0,
) -> jax.Array:
    """Scales rows and columns by factors uniform in [1 - share, 1 + share]: Keras's zoom_range.

    The other arguments are those of `affine`.
    """
    sampling = dict(interpolation=interpolation, fill=fill, value=value)
    return affine(key, images, zoom=share, **sampling)


def draw(key, shape, rotation=0.0, width_shift=0.0, height_shift=0.0, shear=0.0, zoom=0.0) -> Draw:
    """Draws the parameters of `affine` for images of `shape` [B, H, W, C]."""
    radius = (
        check_number("height_shift", height_shift, 0, 1) * shape[1],
        check_number("width_shift", width_shift, 0, 1) * shape[2],
        check_number("rotation", rotation, 0, 180, "degrees"),
        check_number("shear", shear, 0, 89, "degrees"),
        check_number("zoom", zoom, 0, 0.99),
        zoom,
    )
    identity = jnp.array([0, 0, 0, 0, 1, 1], jnp.float32)
    radius = jnp.array(radius, jnp.float32)
    low, high = identity - radius, identity + radius
    return Draw(*jax.random.uniform(key, (shape[0], 6), minval=low, maxval=high).T)


def _source_positions(drawn: Draw, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Returns the row and the column that each output pixel samples, [B, H, W] float32 each.

    In coordinates relative to the center (x to the right, y down), the map is the matrix product
    rotation * shift * shear * zoom. It is computed as a displacement from the output pixel, so that
    small transforms lose no precision.
    """
    down, right, angle, shear, zoom_y, zoom_x = (x[:, None, None] for x in drawn)
    angle, shear = jnp.deg2rad(angle), jnp.deg2rad(shear)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    i, j = (jnp.arange(size, dtype=jnp.float32) for size in (height, width))
    y, x = (i - (height - 1) / 2)[:, None], j - (width - 1) / 2
    delta_x = (zoom_x * cos - 1) * x - zoom_y * jnp.sin(angle + shear) * y
    delta_y = zoom_x * sin * x + (zoom_y * jnp.cos(angle + shear) - 1) * y
    rows = i[:, None] + (delta_y + sin * right + cos * down)
    columns = j + (delta_x + cos * right - sin * down)
    return rows, columns


def _sample(images, rows, columns, interpolation, fill, value) -> jax.Array:
    """Samples images [B, H, W, C] at real positions [B, H', W'], like scipy.ndimage.

    "bilinear" is its order 1, "nearest" its order 0.
    """
    bottom, right = images.shape[1] - 1, images.shape[2] - 1
    outside = (rows < 0) | (rows > bottom) | (columns < 0) | (columns > right)
    rows, columns = _fold(rows, bottom, fill), _fold(columns, right, fill)

    def read(i, j):
        i = jnp.clip(i.astype(jnp.int32), 0, bottom)
        j = jnp.clip(j.astype(jnp.int32), 0, right)
        # vmap over the batch axis, so that a sharded batch needs no communication.
        gather = jax.vmap(lambda image, i, j: image.at[i, j].get(mode="promise_in_bounds"))
        return gather(images, i, j).astype(jnp.float32)

    if interpolation == "nearest":
        out = read(jnp.floor(rows + 0.5), jnp.floor(columns + 0.5))
    else:
        top, left = jnp.floor(rows), jnp.floor(columns)
        y, x = (rows - top)[..., None], (columns - left)[..., None]
        at_left = (1 - y) * read(top, left) + y * read(top + 1, left)
        at_right = (1 - y) * read(top, left + 1) + y * read(top + 1, left + 1)
        out = (1 - x) * at_left + x * at_right
    return jnp.where(outside[..., None], value, out) if fill == "constant" else out


def _fold(positions: jax.Array, last: int, fill: str) -> jax.Array:
    """Maps positions outside the image to the positions inside it that `fill` repeats.

    Results lie in [0, last], or in [-0.5, last + 0.5] for "reflect".
    """
    if fill == "reflect":  # about the outer edge of the border pixels, half a pixel outwards
        phase = jnp.mod(positions + 0.5, 2 * (last + 1))
        return jnp.minimum(phase, 2 * (last + 1) - phase) - 0.5
    if fill == "wrap":  # SciPy's period is the distance between the first and last pixel centers
        is_outside = (positions < 0) | (positions > last)
        return jnp.where(is_outside, jnp.mod(positions, max(last, 1)), positions)
    return jnp.clip(positions, 0, last)
