"""Flips, crops and moves by whole pixels: pixels keep their values, images their dtype."""

import jax
import jax.numpy as jnp

from cifar_jax.augment.arguments import number, whole
from cifar_jax.errors import UserError, unknown

# Of alternating_flip: the same images begin mirrored in every run.
_ALTERNATING = 0xA17


def flip(key: jax.Array, images: jax.Array, probability: float = 0.5) -> jax.Array:
    """Mirrors each image left to right with the given probability.

    Args:
      key: [] typed key.
      images: [B, H, W, C], any dtype.
      probability: in [0, 1].
    """
    number("flip's probability", probability, 0, 1)
    chosen = jax.random.bernoulli(key, probability, images.shape[:1])
    return _mirror(images, chosen, axis=1)


def vertical_flip(key: jax.Array, images: jax.Array, probability: float = 0.5) -> jax.Array:
    """Mirrors each image top to bottom with the given probability; arguments as in `flip`."""
    number("vertical_flip's probability", probability, 0, 1)
    chosen = jax.random.bernoulli(key, probability, images.shape[:1])
    return _mirror(images, chosen, axis=0)


def alternating_flip(
    key: jax.Array, images: jax.Array, *, index: jax.Array, epoch: jax.Array
) -> jax.Array:
    """Mirrors half of the images left to right in one epoch, the other half in the next.

    So every image is seen both ways in any two epochs that follow each other (Jordan, 2024:
    "94% on CIFAR-10 in 3.29 Seconds on a Single GPU"). Which half is a hash of the index: the same
    in every epoch, on every device and in every run.

    Args:
      key: [] typed key, not used.
      images: [B, H, W, C], any dtype.
      index: [B] int32, each image's place in the data set.
      epoch: [B] or [] int32, the epoch that each is seen in, from 0.
    """
    del key
    root = jax.random.key(_ALTERNATING)
    first = jax.vmap(lambda i: jax.random.bernoulli(jax.random.fold_in(root, i)))(index)
    return _mirror(images, first ^ (epoch % 2 == 1), axis=1)


def crop(key: jax.Array, images: jax.Array, padding: int = 4, mode: str = "constant") -> jax.Array:
    """Pads each image on all sides and cuts its size out again at a random place.

    Every one of the (2 * padding + 1)^2 places is equally likely.

    Args:
      key: [] typed key.
      images: [B, H, W, C], any dtype.
      padding: pixels.
      mode: "constant" (zeros: black where images are still uint8), "reflect" or "edge".
    """
    whole("crop", padding, 0, "pixels")
    if mode not in ("constant", "reflect", "edge"):
        raise unknown("crop mode", mode, ("constant", "reflect", "edge"))
    batch, height, width, channels = images.shape
    if padding > min(height, width):
        raise UserError(f"crop by {padding} pixels leaves nothing of images of {height} x {width}")
    padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)), mode)

    corners = jax.random.randint(key, (batch, 2), 0, 2 * padding + 1)

    def cut(image, corner):
        return jax.lax.dynamic_slice(image, (*corner, 0), (height, width, channels))

    return jax.vmap(cut)(padded, corners)


def translate(key: jax.Array, images: jax.Array, pixels: int = 4) -> jax.Array:
    """Moves each image by up to so many whole pixels each way, black behind it.

    The same as `crop` with zeros.

    Args:
      key: [] typed key.
      images: [B, H, W, C], any dtype.
      pixels: greatest distance.
    """
    return crop(key, images, whole("translate", pixels, 0, "pixels"))


def _mirror(images: jax.Array, chosen: jax.Array, axis: int) -> jax.Array:
    """Mirrors the chosen images along an axis of one image.

    By one look-up: with a choice between the image and its mirror image, XLA's CPU compiler
    computes whatever stands before it twice (5 to 10 times slower behind `shift` or `crop`).
    """
    place = jnp.arange(images.shape[axis + 1])
    at = jnp.where(chosen[:, None], place[::-1], place)

    def read(image, at):
        return image.at[(slice(None),) * axis + (at,)].get(mode="promise_in_bounds")

    return jax.vmap(read)(images, at)
