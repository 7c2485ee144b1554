"""Convolutions of images with few channels, as in the first layer of most networks, for CPUs.

XLA's library call copies one patch per output pixel before it multiplies. With three channels and a
few dozen filters, copying takes several times as long as multiplying. Here four neighboring
outputs share a patch: the kernel, shifted to each of the four positions and padded with zeros,
gives the filters of one h x 1 convolution, with about twice the multiplications and a quarter of
the patches. On one core of a Zen 4, the forward pass of 16 images of 32x32 pixels with eight 5x5
filters takes 0.6 ms instead of 1.5 ms.
"""

import jax.numpy as jnp

from cifar_jax.ops.tiles import TILE, conv_rows, every_fourth, interleaved

_MAX_CHANNELS = 4
# With 64 filters, the additional multiplications cost as much time as the patches saved.
_MAX_FEATURES = 32


def is_applicable(image_shape, kernel_shape, padding, dtype) -> bool:
    """Returns whether `convolve` supports a convolution and is faster than the library call.

    The arguments are those of `winograd.is_applicable`.
    """
    return (
        dtype == jnp.float32
        and kernel_shape[2] <= _MAX_CHANNELS
        and kernel_shape[3] <= _MAX_FEATURES
        and min(kernel_shape[:2]) > 1  # kernels of 1x1 have no patches
        and min(low for sides in padding for low in sides) >= 0
        # XLA uses the smaller of images and kernel as the kernel.
        and min(image_shape[1:3]) >= 2 * max(kernel_shape[:2])
    )


def convolve(images, kernel, padding, precision=None):
    """Convolves [B, H, W, I] images with an [h, w, I, O] kernel to [B, H', W', O], all float32.

    Requires that `is_applicable` holds.

    Args:
      images: [B, H, W, I].
      kernel: [h, w, I, O].
      padding: ((low, high), (low, high)) of height and width, in pixels.
      precision: precision of the products, see `lax.conv_general_dilated`.
    """
    rows, taps = kernel.shape[:2]
    width = images.shape[2] + sum(padding[1]) - taps + 1
    columns = every_fourth(images, width, padding[1][0], taps - 1)
    shifted = [jnp.pad(kernel, ((0, 0), (i, TILE - 1 - i), (0, 0), (0, 0))) for i in range(TILE)]
    kernel = jnp.concatenate(shifted, axis=3)
    kernel = kernel.reshape(rows, 1, -1, kernel.shape[3])
    out = conv_rows(jnp.concatenate(columns, axis=3), kernel, padding, precision)
    return interleaved(out, width)
