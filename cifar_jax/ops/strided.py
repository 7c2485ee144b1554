"""Gradients of strided convolutions, and the kernel gradient of 1x1 convolutions, for CPUs.

Computed as convolutions, both gradients multiply by the zeros between strided pixels: at a stride
of 2, three of four products are with zeros. Here the gradient of the images is one matrix product
for all taps, followed by shifted sums. For the gradient of the kernel, the pixels are divided into
phases, and all pixels of a phase are multiplied by the same taps; a phase with a single tap is
computed as a matrix product, and any other phase as a convolution.
"""

import itertools
import math

import jax.numpy as jnp
from jax import lax

from cifar_jax.ops.options import NHWC

# With fewer channels, as in a first layer, the products are too small.
_MIN_CHANNELS = 8
# Max taps per phase; `images_gradient` keeps the products of all taps in memory.
_MAX_TAPS = 4


def is_applicable(image_shape, kernel_shape, strides, padding, dilation, dtype) -> bool:
    """Returns whether `kernel_gradient` supports a convolution and is faster than the library call.

    The result also applies to `images_gradient` if a stride is larger than 1.

    Args:
      image_shape: (B, H, W, I).
      kernel_shape: (h, w, I, O).
      strides: strides of height and width.
      padding: ((low, high), (low, high)) of height and width, in pixels.
      dilation: dilation of the kernel.
      dtype: dtype of both images and kernel.
    """
    num_taps, num_phases = math.prod(kernel_shape[:2]), math.prod(strides)
    return (
        dtype == jnp.float32
        and dilation == (1, 1)
        and min(low for low, _ in padding) >= 0
        and math.prod(image_shape[1:3]) > 1
        and kernel_shape[2] >= _MIN_CHANNELS
        and (num_phases > 1 or num_taps == 1)
        and num_taps <= _MAX_TAPS * num_phases
    )


def images_gradient(kernel, grad, size, strides, padding, precision=None):
    """Returns the gradient [B, H, W, I] with respect to the images.

    Args:
      kernel: [h, w, I, O].
      grad: [B, H', W', O], gradient with respect to the convolution's output.
      size: (H, W) of the images.
      strides: strides of height and width.
      padding: ((low, high), (low, high)) of height and width, in pixels; low >= 0.
      precision: precision of the products, see `lax.dot_general`.
    """
    batch, *outputs, features = grad.shape
    by_tap = lax.dot_general(
        grad.reshape(-1, features),
        kernel.reshape(-1, features),
        (((1,), (1,)), ((), ())),
        precision=precision,
    ).reshape(batch, *outputs, *kernel.shape[:3])
    # In the padded image, the pixel at stride * m + phase is multiplied by the tap at
    # phase + stride * i for the output at m - i.
    lengths = [
        -(-(low + pixels) // stride)
        for (low, _), pixels, stride in zip(padding, size, strides, strict=True)
    ]
    zero = jnp.zeros((), grad.dtype)
    phases = []
    for phase in itertools.product(*map(range, strides)):
        total = jnp.zeros((batch, *lengths, kernel.shape[2]), grad.dtype)
        for tap in itertools.product(*map(range, phase, kernel.shape[:2], strides)):
            products = by_tap[:, :, :, tap[0], tap[1]]
            shifts = [t // stride for t, stride in zip(tap, strides, strict=True)]
            sides = [
                (shift, length - shift - n, 0)
                for shift, length, n in zip(shifts, lengths, outputs, strict=True)
            ]
            total = total + lax.pad(products, zero, [(0, 0, 0), *sides, (0, 0, 0)])
        phases.append(total)
    images = jnp.stack(phases).reshape(*strides, *phases[0].shape)
    images = images.transpose(2, 3, 0, 4, 1, 5).reshape(
        batch, lengths[0] * strides[0], lengths[1] * strides[1], kernel.shape[2]
    )
    (top, _), (left, _) = padding
    return images[:, top : top + size[0], left : left + size[1]]


def kernel_gradient(images, grad, size, strides, padding, precision=None):
    """Returns the gradient [h, w, I, O] with respect to the kernel.

    Args:
      images: [B, H, W, I].
      grad: [B, H', W', O], gradient with respect to the convolution's output.
      size: (h, w) of the kernel.
      strides: strides of height and width.
      padding: ((low, high), (low, high)) of height and width, in pixels; low >= 0.
      precision: precision of the products, see `lax.dot_general`.
    """
    batch, *outputs, features = grad.shape
    channels = images.shape[3]
    sides = [(0, 0, 0), *((*pair, 0) for pair in padding), (0, 0, 0)]
    images = lax.pad(images, jnp.zeros((), images.dtype), sides)
    taps = {}
    for phase in itertools.product(*(range(min(k, s)) for k, s in zip(size, strides, strict=True))):
        counts = [-(-(k - p) // s) for k, p, s in zip(size, phase, strides, strict=True)]
        limits = [
            p + (n + count - 2) * s + 1
            for p, n, count, s in zip(phase, outputs, counts, strides, strict=True)
        ]
        pixels = lax.slice(images, (0, *phase, 0), (batch, *limits, channels), (1, *strides, 1))
        if counts == [1, 1]:
            taps[phase] = lax.dot_general(
                pixels.reshape(-1, channels),
                grad.reshape(-1, features),
                (((0,), (0,)), ((), ())),
                precision=precision,
            )
            continue
        # With batch and channels exchanged, this is again a convolution.
        sums = lax.conv_general_dilated(
            pixels.transpose(3, 1, 2, 0), grad.transpose(1, 2, 0, 3), (1, 1), "VALID",
            dimension_numbers=NHWC, precision=precision,
        )  # fmt: skip
        for i, j in itertools.product(*map(range, counts)):
            taps[phase[0] + i * strides[0], phase[1] + j * strides[1]] = sums[:, i, j]
    return jnp.stack([taps[tap] for tap in sorted(taps)]).reshape(*size, channels, features)
