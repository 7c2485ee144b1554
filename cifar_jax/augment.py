"""Augmentation on the device: pure functions of (keys, images), composed from one line of config.

`parse("flip|crop(4)")` gives one function that flips, then crops. Each image draws from its own
key, so the batch may be split over devices in any way. Adding an operation is one function
`name(keys, images, *arguments)` in OPS and one test.
"""

import ast
import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp

from cifar_jax.errors import UserError, unknown

Augment = Callable[[jax.Array, jax.Array], jax.Array]


def flip(keys: jax.Array, images: jax.Array, probability: float = 0.5) -> jax.Array:
    """Mirrors each image left to right with the given probability.

    Args:
      keys: [B] typed keys.
      images: [B, H, W, C], any dtype.
    """
    if not 0 <= probability <= 1:
        raise UserError(f"flip needs a probability from 0 to 1, not {probability}")
    chosen = jax.vmap(lambda key: jax.random.bernoulli(key, probability))(keys)
    return jnp.where(chosen[:, None, None, None], images[:, :, ::-1], images)


def crop(keys: jax.Array, images: jax.Array, padding: int = 4, mode: str = "constant") -> jax.Array:
    """Pads each image on all sides and cuts its size out again at a random place.

    Every one of the (2 * padding + 1)^2 places is equally likely.

    Args:
      keys: [B] typed keys.
      images: [B, H, W, C], any dtype.
      padding: pixels.
      mode: "constant" (zeros: black where images are still uint8), "reflect" or "edge".
    """
    if not isinstance(padding, int) or padding < 0:
        raise UserError(f"crop needs a whole number of pixels, 0 or more, not {padding!r}")
    if mode not in ("constant", "reflect", "edge"):
        raise unknown("crop mode", mode, ("constant", "reflect", "edge"))
    _, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode)

    def cut(key, image):
        top, left = jax.random.randint(key, (2,), 0, 2 * padding + 1)
        return jax.lax.dynamic_slice(image, (top, left, 0), (height, width, channels))

    return jax.vmap(cut)(keys, padded)


def shift(keys: jax.Array, images: jax.Array, width: float = 0.1, height: float = 0.1) -> jax.Array:
    """Moves each image by a real number of pixels: Keras' width_ and height_shift_range.

    The distance is uniform in +- that share of the image's width and height. Bilinear
    interpolation; what lies outside repeats the nearest pixel, as is Keras' default.

    Args:
      keys: [B] typed keys.
      images: [B, H, W, C], any dtype.

    Returns:
      float32, in the range of `images`.
    """
    if not (0 <= width <= 1 and 0 <= height <= 1):
        raise UserError(f"shift needs shares of the image from 0 to 1, not {width} and {height}")
    num_rows, num_columns = images.shape[1:3]

    def move(key, image):
        reach = jnp.array([height * num_rows, width * num_columns], jnp.float32)
        distance = jax.random.uniform(key, (2,), minval=-reach, maxval=reach)
        image = _sample_rows(image, jnp.arange(num_rows) + distance[0])
        image = _sample_rows(image.swapaxes(0, 1), jnp.arange(num_columns) + distance[1])
        return image.swapaxes(0, 1)

    return jax.vmap(move)(keys, images.astype(jnp.float32))


def _sample_rows(image: jax.Array, places: jax.Array) -> jax.Array:
    """Interpolates between the rows of `image` [H, ...] at real `places` [H]."""
    places = jnp.clip(places, 0, image.shape[0] - 1)
    above = jnp.floor(places).astype(jnp.int32)
    below = jnp.minimum(above + 1, image.shape[0] - 1)
    share = (places - above)[:, None, None]
    return (1 - share) * image[above] + share * image[below]


OPS: dict[str, Callable[..., jax.Array]] = {"flip": flip, "crop": crop, "shift": shift}


def parse(line: str) -> Augment:
    """Builds the composition of operations that `line` names, in their order.

    Args:
      line: names from OPS, with literal arguments where wanted, separated by "|":
        "flip|crop(4, mode='reflect')". The empty line leaves images as they are.

    Returns:
      A function of keys [B] and images [B, H, W, C] to images of the same shape and range; their
      dtype stays, but operations that interpolate return float32.

    Raises:
      UserError: for an unknown operation, a wrong argument or a line that is no such list.
    """
    operations = [_parse_one(part.strip()) for part in line.split("|") if part.strip()]

    def augment(keys: jax.Array, images: jax.Array) -> jax.Array:
        for i, (function, args, kwargs) in enumerate(operations):
            own_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, i)
            images = function(own_keys, images, *args, **kwargs)
        return images

    return augment


def _parse_one(text: str) -> tuple[Callable[..., jax.Array], list, dict]:
    try:
        node = ast.parse(text, mode="eval").body
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        name = call.func.id
        args = [ast.literal_eval(arg) for arg in call.args]
        kwargs = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError, AttributeError) as error:
        raise UserError(
            f"augmentation {text!r} is neither a name nor a call with plain values, as in crop(4)"
        ) from error
    if name not in OPS:
        raise unknown("augmentation", name, OPS)
    try:
        inspect.signature(OPS[name]).bind(None, None, *args, **kwargs)
    except TypeError as error:
        raise UserError(f"augmentation {text!r}: {error}") from error
    return OPS[name], args, kwargs


def normalize(images: jax.Array, mean: jax.Array, std: jax.Array, dtype=jnp.float32) -> jax.Array:
    """Scales images to (image / 255 - mean) / std.

    Args:
      images: [B, H, W, C] in [0, 255], any dtype.
      mean: [C] or a number, in [0, 1].
      std: likewise.
      dtype: of the result; the arithmetic is float32.
    """
    mean = jnp.asarray(mean, jnp.float32)
    std = jnp.asarray(std, jnp.float32)
    return ((images.astype(jnp.float32) / 255.0 - mean) / std).astype(dtype)
