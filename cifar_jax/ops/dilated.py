"""Dilated convolutions as ordinary ones, for CPUs.

With a dilation of d, an output pixel depends only on input pixels whose rows and columns differ
from its own by multiples of d. So the d x d phases of the images, each with every d-th row and
column, are convolved separately: as one larger batch, with a kernel that is not dilated, for which
faster forms exist. With this and the max-pool by rows and columns in pooling.py, a training step of
inception_resnet takes 0.84 of the time (benchmarks/results/checks/dilated.txt).
"""

from collections.abc import Callable

import jax

from cifar_jax.ops.options import Options


def is_applicable(image_shape: tuple[int, ...], options: Options) -> bool:
    """Returns whether `conv` supports a convolution and is faster than the library call.

    Args:
      image_shape: (B, H, W, I).
      options: The options of the convolution.
    """
    axes = zip(image_shape[1:3], options.padding, options.dilation, strict=True)
    return (
        options.strides == (1, 1)
        and max(options.dilation) > 1
        # All phases have the same size and the same padding.
        and all(n % step == 0 for size, sides, step in axes for n in (size, *sides))
    )


def conv(images: jax.Array, kernel: jax.Array, options: Options, convolve: Callable) -> jax.Array:
    """Convolves [B, H, W, I] images with an [h, w, I, O] kernel to [B, H', W', O].

    Requires that `is_applicable` holds.

    Args:
      images: [B, H, W, I].
      kernel: [h, w, I, O].
      options: The options of the convolution.
      convolve: Computes convolutions without dilation from images, kernel and options.
    """
    padding = tuple(
        (low // step, high // step)
        for (low, high), step in zip(options.padding, options.dilation, strict=True)
    )
    phases = _split(images, options.dilation)
    out = convolve(phases, kernel, options._replace(padding=padding, dilation=(1, 1)))
    return _join(out, options.dilation)


def _split(images: jax.Array, steps: tuple[int, int]) -> jax.Array:
    """Moves phases into the batch: [B, H, W, C] to [h * w * B, H / h, W / w, C], steps = (h, w)."""
    (rows, columns), (batch, height, width, channels) = steps, images.shape
    phases = images.reshape(batch, height // rows, rows, width // columns, columns, channels)
    shape = (rows * columns * batch, height // rows, width // columns, channels)
    return phases.transpose(2, 4, 0, 1, 3, 5).reshape(shape)


def _join(phases: jax.Array, steps: tuple[int, int]) -> jax.Array:
    """Reverses `_split`."""
    (rows, columns), (_, height, width, channels) = steps, phases.shape
    images = phases.reshape(rows, columns, -1, height, width, channels).transpose(2, 3, 0, 4, 1, 5)
    return images.reshape(-1, height * rows, width * columns, channels)
