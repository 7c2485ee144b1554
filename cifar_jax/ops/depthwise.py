"""Depthwise convolutions tap by tap, for CPUs.

XLA's library has no depthwise convolution, and one call per channel would take as many calls as
there are channels.
"""

import jax.numpy as jnp
from jax import lax

from cifar_jax.ops.options import Options


def conv(images, kernel, options: Options):
    """Convolves each channel of [B, H, W, I] with its own filters to [B, H', W', O].

    Args:
      images: [B, H, W, I].
      kernel: [h, w, 1, O], where O is a multiple of I.
      options: Strides, padding and dilation; precision and dtype are not used.
    """
    strides, padding, dilation = options[:3]
    images = jnp.repeat(images, kernel.shape[3] // images.shape[3], axis=3)
    sides = [(0, 0, 0), *((*pair, 0) for pair in padding), (0, 0, 0)]
    images = lax.pad(images, jnp.zeros((), images.dtype), sides)
    sizes = [
        (size - (k - 1) * d - 1) // stride + 1
        for size, k, d, stride in zip(
            images.shape[1:3], kernel.shape[:2], dilation, strides, strict=True
        )
    ]

    def tap(i, j):
        first = i * dilation[0], j * dilation[1]
        last = [f + (n - 1) * s + 1 for f, n, s in zip(first, sizes, strides, strict=True)]
        limit = (images.shape[0], *last, images.shape[3])
        return lax.slice(images, (0, *first, 0), limit, (1, *strides, 1)) * kernel[i, j, 0]

    return sum(tap(i, j) for i in range(kernel.shape[0]) for j in range(kernel.shape[1]))
