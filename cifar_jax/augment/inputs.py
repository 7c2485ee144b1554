"""From augmented images to the input of a network: scaling of pixels, then resizing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax.errors import unknown

NORMALIZATIONS = ("raw", "unit", "symmetric", "standard", "caffe", "imagenet")
RESIZE_METHODS = ("bilinear", "bicubic")


class Scaling(NamedTuple):
    """How pixels are scaled: (pixels / 255 - mean) / std for each channel.

    Attributes:
      mean: A number or [3], in the order of the channels after any reversal.
      std: A number or [3].
      is_bgr: Whether the channels are first reversed from RGB to BGR.
    """

    mean: float | tuple[float, ...] | np.ndarray
    std: float | tuple[float, ...] | np.ndarray
    is_bgr: bool = False


def scaling(name: str, mean: np.ndarray, std: np.ndarray) -> Scaling:
    """Returns the scaling that config.augment.normalize names.

    Args:
      name: One of NORMALIZATIONS. "symmetric" is the mode "tf" of keras.applications, "caffe" the
        mode of that name, and "imagenet" the mode "torch", which torchvision uses.
      mean: [3], the mean of the training images on a [0, 1] scale, for "standard".
      std: [3], their standard deviation.

    Raises:
      UserError: If the name is unknown.
    """
    if name not in NORMALIZATIONS:
        raise unknown("augment.normalize", name, NORMALIZATIONS)
    return {
        "raw": Scaling(0.0, 1 / 255),
        "unit": Scaling(0.0, 1.0),
        "symmetric": Scaling(0.5, 0.5),
        "standard": Scaling(mean, std),
        "caffe": Scaling((103.939 / 255, 116.779 / 255, 123.68 / 255), 1 / 255, is_bgr=True),
        "imagenet": Scaling((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    }[name]


def preprocess(
    images: jax.Array,
    scaling: Scaling,
    *,
    size: int = 0,
    method: str = "bilinear",
    dtype=jnp.float32,
) -> jax.Array:
    """Scales the pixels of images, and resizes the images.

    Scaling is affine and resizing is a weighted mean of pixels, so their order does not matter;
    scaling first touches fewer pixels if the images are enlarged. The resized images are computed
    in float32 and may exceed the range of the input with "bicubic".

    Args:
      images: [B, H, W, 3] in [0, 255], RGB, any dtype.
      scaling: The scaling of the pixels.
      size: Height and width of the result in pixels; 0 to keep those of the images.
      method: One of RESIZE_METHODS. Pixels are samples at their centers, and smaller images are
        antialiased, as in Pillow.
      dtype: The dtype of the result.

    Returns:
      [B, size, size, 3].
    """
    if scaling.is_bgr:
        images = images[..., ::-1]
    if not size:
        return normalize(images, scaling.mean, scaling.std, dtype)
    images = normalize(images, scaling.mean, scaling.std)
    shape = (images.shape[0], size, size, images.shape[3])
    return jax.image.resize(images, shape, method).astype(dtype)


def normalize(images: jax.Array, mean: jax.Array, std: jax.Array, dtype=jnp.float32) -> jax.Array:
    """Returns (images / 255 - mean) / std.

    Args:
      images: [B, H, W, C] in [0, 255], any dtype.
      mean: [C] or a number, in [0, 1].
      std: [C] or a number, in [0, 1].
      dtype: The dtype of the result; the computation is in float32.
    """
    mean = jnp.asarray(mean, jnp.float32)
    std = jnp.asarray(std, jnp.float32)
    return ((images.astype(jnp.float32) / 255.0 - mean) / std).astype(dtype)
