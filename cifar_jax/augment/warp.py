"""Moves that interpolate, as Keras' ImageDataGenerator makes them: one transform, one look-up.

A pixel of the result looks at a real place of the image; `affine` draws the map from the one to
the other, and the other operations here are cases of it. All return float32. Four gathers of a
pixel each: on a CPU, packing neighbours into one word, or a pass over rows and one over columns,
was slower.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cifar_jax.augment.arguments import number
from cifar_jax.errors import unknown

INTERPOLATIONS = ("bilinear", "nearest")
FILLS = ("nearest", "constant", "reflect", "wrap")


class Draw(NamedTuple):
    """What `affine` drew; each [B] float32.

    Attributes:
      down: pixels from a pixel of the result to the one that it shows: Keras' `ty`.
      right: likewise, Keras' `tx`.
      rotation: degrees, Keras' `theta`.
      shear: degrees.
      zoom_rows: rows of the image per row of the result, below 1 for larger: Keras' `zy`.
      zoom_columns: likewise, Keras' `zx`.
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
    """Rotates, shifts, shears and zooms each image at once, about its centre.

    Keras' ImageDataGenerator, with the formula of `apply_affine_transform` in Keras 3 and in
    keras-preprocessing from 1.1.3 on: of the transposed image in versions before, whose shear
    moves columns in the place of rows. Those newer versions move images up and down by
    width_shift_range and sideways by height_shift_range; here each does what its name says.

    Args:
      key: [] typed key.
      images: [B, H, W, C], any dtype.
      rotation: greatest angle either way, degrees from 0 to 180; the angle is uniform.
      width_shift: greatest distance either way as a share of the width, from 0 to 1; uniform.
      height_shift: likewise, of the height.
      shear: greatest angle either way, degrees from 0 to 89; uniform.
      zoom: z from 0 to below 1; rows and columns are scaled by factors uniform in [1 - z, 1 + z].
      interpolation: "bilinear" or "nearest".
      fill: what lies outside, as the modes of those names in scipy.ndimage: "nearest" (edge pixels
        go on), "constant" (`value`), "reflect" (the image mirrored) or "wrap" (repeated).
      value: grey level outside with fill "constant", on the scale of `images`.

    Returns:
      float32, in the range of `images`.

    Raises:
      UserError: for an argument out of its range.
    """
    drawn = draw(key, images.shape, rotation, width_shift, height_shift, shear, zoom)
    if interpolation not in INTERPOLATIONS:
        raise unknown("interpolation", interpolation, INTERPOLATIONS)
    if fill not in FILLS:
        raise unknown("fill", fill, FILLS)
    value = number("value", value, 0, 255)
    rows, columns = _places(drawn, *images.shape[1:3])
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
    """Moves each image by a real number of pixels: Keras' width_ and height_shift_range.

    The distance is uniform in +- that share of the image's width and height; see `affine`.
    """
    how = dict(interpolation=interpolation, fill=fill, value=value)
    return affine(key, images, width_shift=width, height_shift=height, **how)


def rotation(
    key: jax.Array,
    images: jax.Array,
    degrees: float = 15.0,
    interpolation: str = "bilinear",
    fill: str = "nearest",
    value: float = 0.0,
) -> jax.Array:
    """Turns each image by an angle uniform in +- `degrees`: Keras' rotation_range; see `affine`."""
    how = dict(interpolation=interpolation, fill=fill, value=value)
    return affine(key, images, rotation=degrees, **how)


def shear(
    key: jax.Array,
    images: jax.Array,
    degrees: float = 10.0,
    interpolation: str = "bilinear",
    fill: str = "nearest",
    value: float = 0.0,
) -> jax.Array:
    """Shears each image by an angle uniform in +- `degrees`: Keras' shear_range; see `affine`."""
    how = dict(interpolation=interpolation, fill=fill, value=value)
    return affine(key, images, shear=degrees, **how)


def zoom(
    key: jax.Array,
    images: jax.Array,
    share: float = 0.1,
    interpolation: str = "bilinear",
    fill: str = "nearest",
    value: float = 0.0,
) -> jax.Array:
    """Scales rows and columns by factors uniform in 1 +- `share`: Keras' zoom_range.

    See `affine`.
    """
    how = dict(interpolation=interpolation, fill=fill, value=value)
    return affine(key, images, zoom=share, **how)


def draw(key, shape, rotation=0.0, width_shift=0.0, height_shift=0.0, shear=0.0, zoom=0.0) -> Draw:
    """Draws what `affine` does to images of `shape` [B, H, W, C]; its arguments."""
    reach = (
        number("height_shift", height_shift, 0, 1) * shape[1],
        number("width_shift", width_shift, 0, 1) * shape[2],
        number("rotation", rotation, 0, 180, "degrees"),
        number("shear", shear, 0, 89, "degrees"),
        number("zoom", zoom, 0, 0.99),
        zoom,
    )
    middle = jnp.array([0, 0, 0, 0, 1, 1], jnp.float32)
    reach = jnp.array(reach, jnp.float32)
    low, high = middle - reach, middle + reach
    return Draw(*jax.random.uniform(key, (shape[0], 6), minval=low, maxval=high).T)


def _places(drawn: Draw, height: int, width: int) -> tuple[jax.Array, jax.Array]:
    """Where each pixel of the result looks: row and column, [B, H, W] float32 each.

    In coordinates (x to the right, y down) from the centre: rotation * shift * shear * zoom. Kept
    as differences from the pixel's own place, so that nothing is lost where little moves.
    """
    down, right, angle, shear, zoom_y, zoom_x = (x[:, None, None] for x in drawn)
    angle, shear = jnp.deg2rad(angle), jnp.deg2rad(shear)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    i, j = (jnp.arange(size, dtype=jnp.float32) for size in (height, width))
    y, x = (i - (height - 1) / 2)[:, None], j - (width - 1) / 2
    to_right = (zoom_x * cos - 1) * x - zoom_y * jnp.sin(angle + shear) * y
    to_bottom = zoom_x * sin * x + (zoom_y * jnp.cos(angle + shear) - 1) * y
    rows = i[:, None] + (to_bottom + sin * right + cos * down)
    columns = j + (to_right + cos * right - sin * down)
    return rows, columns


def _sample(images, rows, columns, interpolation, fill, value) -> jax.Array:
    """Reads images [B, H, W, C] at real places [B, H', W'], as scipy.ndimage by order 1 or 0."""
    bottom, right = images.shape[1] - 1, images.shape[2] - 1
    outside = (rows < 0) | (rows > bottom) | (columns < 0) | (columns > right)
    rows, columns = _inside(rows, bottom, fill), _inside(columns, right, fill)

    def read(i, j):
        i = jnp.clip(i.astype(jnp.int32), 0, bottom)
        j = jnp.clip(j.astype(jnp.int32), 0, right)
        # One image at a time, so that a sharded batch stays where it is.
        at = jax.vmap(lambda image, i, j: image.at[i, j].get(mode="promise_in_bounds"))
        return at(images, i, j).astype(jnp.float32)

    if interpolation == "nearest":
        out = read(jnp.floor(rows + 0.5), jnp.floor(columns + 0.5))
    else:
        top, left = jnp.floor(rows), jnp.floor(columns)
        y, x = (rows - top)[..., None], (columns - left)[..., None]
        at_left = (1 - y) * read(top, left) + y * read(top + 1, left)
        at_right = (1 - y) * read(top, left + 1) + y * read(top + 1, left + 1)
        out = (1 - x) * at_left + x * at_right
    return jnp.where(outside[..., None], value, out) if fill == "constant" else out


def _inside(places: jax.Array, last: int, fill: str) -> jax.Array:
    """Maps real places to where the image has what `fill` wants there; [0, last] and a little."""
    if fill == "reflect":  # at the pixels' edges: every half pixel beyond one has its value
        around = jnp.mod(places + 0.5, 2 * (last + 1))
        return jnp.minimum(around, 2 * (last + 1) - around) - 0.5
    if fill == "wrap":  # SciPy's period is the distance of the first pixel from the last
        return jnp.where((places < 0) | (places > last), jnp.mod(places, max(last, 1)), places)
    return jnp.clip(places, 0, last)
