"""Convolutions that XLA's CPU compiler turns into fast library calls, even inside loops.

It does so only if a convolution's dimensions are already in canonical order or if it is in the
program's entry computation. Inside a loop, neither holds for the two gradients of
`jax.lax.conv_general_dilated`, which run 18 to 45 times slower there (jax-ml/jax#12868). Written as
NHWC by HWIO convolutions with explicit transposes, they give the same results up to rounding and
run at full speed inside scan, while and cond.

Images smaller than the kernel are padded before the convolution, because XLA uses the smaller of
the two as the kernel and has no library call for the result. Without the padding, on one core, the
forward pass of 64 images of 2x2 pixels with 512 features took 1,163 ms, and both gradients of 128
images of 1x1 pixels took 187 ms.

Where `stem` or `strided` is applicable, it replaces a library call.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cifar_jax.ops import stem, strided
from cifar_jax.ops.options import NHWC, Options, is_plain


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(images, kernel, options: Options):
    """Convolves [B, H, W, I] images with an [h, w, I, O] kernel to [B, H', W', O].

    Only reverse-mode differentiation is defined.
    """
    return _forward(images, kernel, options)[0]


@functools.partial(jax.jit, static_argnums=2)
def _forward(images, kernel, options):
    if is_plain(images, kernel, options) and stem.is_applicable(
        images.shape, kernel.shape, options.padding, images.dtype
    ):
        out = stem.convolve(images, kernel, options.padding, options.precision)
    else:
        out = _library_call(images, kernel, options)
    return out, (images, kernel)


@functools.partial(jax.jit, static_argnums=0)
def _backward(options, residuals, grad):
    images, kernel = residuals
    grad = grad.astype(images.dtype)
    strides, padding, dilation, precision, _ = options
    has_form = images.dtype == kernel.dtype and strided.is_applicable(
        images.shape, kernel.shape, strides, padding, dilation, images.dtype
    )
    if has_form and max(strides) > 1:
        images_grad = strided.images_gradient(
            kernel, grad, images.shape[1:3], strides, padding, precision
        )
    else:
        images_grad = _images_gradient(images, kernel, grad, options)
    if has_form:
        kernel_grad = strided.kernel_gradient(
            images, grad, kernel.shape[:2], strides, padding, precision
        )
    else:
        kernel_grad = _kernel_gradient(images, kernel, grad, options)
    return images_grad, kernel_grad.astype(kernel.dtype)


conv.defvjp(_forward, _backward)


def _images_gradient(images, kernel, grad, options):
    """Convolves the gradient, with zeros between strided pixels, with the flipped kernel."""
    padding = tuple(
        (extent - 1 - low, size + low - (out - 1) * stride - 1)
        for extent, size, out, stride, (low, _) in _geometry(images, kernel, grad, options)
    )
    return _library_call(
        grad,
        lax.rev(kernel, (0, 1)).transpose(0, 1, 3, 2),
        Options((1, 1), padding, options.dilation, options.precision),
        lhs_dilation=options.strides,
    )


def _kernel_gradient(images, kernel, grad, options):
    """Convolves the images with the gradient, with batch and channels exchanged."""
    padding = tuple(
        (low, (out - 1) * stride + extent - size - low)
        for extent, size, out, stride, (low, _) in _geometry(images, kernel, grad, options)
    )
    return _library_call(
        images.transpose(3, 1, 2, 0),
        grad.transpose(1, 2, 0, 3),
        Options(options.dilation, padding, options.strides, options.precision),
    ).transpose(1, 2, 0, 3)


def _geometry(images, kernel, grad, options):
    """Yields (extent of the dilated kernel, image size, output size, stride, padding) per axis."""
    for axis in (0, 1):
        yield (
            (kernel.shape[axis] - 1) * options.dilation[axis] + 1,
            images.shape[axis + 1],
            grad.shape[axis + 1],
            options.strides[axis],
            options.padding[axis],
        )


def _library_call(images, kernel, options, lhs_dilation=(1, 1)):
    """Convolves NHWC images with an HWIO kernel so that XLA keeps the order of the dimensions."""
    num_pixels = math.prod(images.shape[1:3])
    if num_pixels == 1:
        return _one_pixel(images, kernel, options)
    padding = options.padding
    # With a negative low padding, XLA's library call reads out of bounds.
    if num_pixels < math.prod(kernel.shape[:2]) or min(low for low, _ in padding) < 0:
        between = ((*sides, d - 1) for sides, d in zip(padding, lhs_dilation, strict=True))
        images = lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), *between, (0, 0, 0)])
        images = lax.optimization_barrier(images)  # keeps XLA from fusing the padding back in
        padding, lhs_dilation = ((0, 0),) * 2, (1, 1)
    return lax.conv_general_dilated(
        images,
        kernel,
        options.strides,
        padding,
        lhs_dilation,
        options.dilation,
        dimension_numbers=NHWC,
        precision=options.precision,
        preferred_element_type=options.dtype,
    )


def _one_pixel(images, kernel, options):
    """Convolves images of one pixel: a product with the taps of the kernel that cover the pixel."""
    around = [(0, 0, 0)]
    for axis in (0, 1):
        (low, high), stride = options.padding[axis], options.strides[axis]
        size, step = kernel.shape[axis], options.dilation[axis]
        num_outputs = (low + high - (size - 1) * step) // stride + 1
        # Output i covers the pixel with tap (low - i * stride) / step, if that tap exists.
        covered = [
            (i, (low - i * stride) // step)
            for i in range(num_outputs)
            if (low - i * stride) % step == 0 and 0 <= (low - i * stride) // step < size
        ]
        outputs, taps = [i for i, _ in covered], [tap for _, tap in covered]
        if taps != list(range(size)):
            kernel = jnp.take(kernel, np.array(taps, int), axis)
        first, last = (outputs[0], outputs[-1]) if covered else (num_outputs, num_outputs - 1)
        between = outputs[1] - first - 1 if len(covered) > 1 else 0
        around.append((first, num_outputs - 1 - last, between))
    out = jnp.einsum(
        "bi,hwio->bhwo",
        images[:, 0, 0],
        kernel,
        precision=options.precision,
        preferred_element_type=options.dtype,
    )
    return lax.pad(out, jnp.zeros((), out.dtype), [*around, (0, 0, 0)])
