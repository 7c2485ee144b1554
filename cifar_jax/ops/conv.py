"""Convolution in the form that the backend runs fastest.

XLA's CPU compiler turns a convolution into a fast library call only if its dimensions are already
in canonical order or if it is in the program's entry computation. Inside a loop, neither holds for
the two gradients of `jax.lax.conv_general_dilated`, which run 18 to 45 times slower there
(jax-ml/jax#12868). Written as NHWC by HWIO convolutions with explicit transposes, they give the
same results up to rounding and run at full speed inside scan, while and cond.

Images smaller than the kernel are padded before the convolution, because XLA uses the smaller of
the two as the kernel and has no library call for the result. Without the padding, on one core, the
forward pass of 64 images of 2x2 pixels with 512 features took 1,163 ms, and both gradients of 128
images of 1x1 pixels took 187 ms.

Some convolutions have forms that are faster than the library call: with a stride of 1, `winograd`
for 3x3 kernels and `stem` for images with few channels; with larger strides or 1x1 kernels, the
gradients in `strided`.

All other backends run `jax.lax.conv_general_dilated` unchanged.
"""

import contextlib
import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cifar_jax.ops import stem, strided, winograd

_NHWC = ("NHWC", "HWIO", "NHWC")
_use_reference = False


@contextlib.contextmanager
def stock_convolutions() -> Iterator[None]:
    """Traces networks with `jax.lax`'s convolutions on CPUs too, to count operations."""
    global _use_reference
    _use_reference = True
    try:
        yield
    finally:
        _use_reference = False


def conv_general_dilated(
    lhs,
    rhs,
    window_strides,
    padding,
    lhs_dilation=None,
    rhs_dilation=None,
    dimension_numbers=None,
    feature_group_count=1,
    batch_group_count=1,
    precision=None,
    preferred_element_type=None,
    out_sharding=None,
):
    """Computes `jax.lax.conv_general_dilated` in the form that the default backend runs fastest.

    The arguments and the result are the same, so that it can be passed as
    `nnx.Conv(conv_general_dilated=...)`. On CPUs only reverse-mode differentiation is defined.
    """
    ones = (1,) * (lhs.ndim - 2)
    spec = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    is_nhwc = lhs.ndim == 4 and spec == lax.conv_dimension_numbers(lhs.shape, rhs.shape, _NHWC)
    if (
        _use_reference
        or jax.default_backend() != "cpu"
        or not is_nhwc
        or tuple(lhs_dilation or ones) != ones
        or batch_group_count != 1
        or out_sharding is not None
    ):
        return lax.conv_general_dilated(
            lhs, rhs, window_strides, padding, lhs_dilation, rhs_dilation, dimension_numbers,
            feature_group_count, batch_group_count, precision, preferred_element_type,
            out_sharding=out_sharding,
        )  # fmt: skip
    dilation = tuple(rhs_dilation or ones)
    if isinstance(padding, str):
        extent = [(k - 1) * d + 1 for k, d in zip(rhs.shape[:2], dilation, strict=True)]
        padding = lax.padtype_to_pads(lhs.shape[1:3], extent, window_strides, padding)
    padding = tuple((int(low), int(high)) for low, high in padding)
    static = tuple(window_strides), padding, dilation, precision, preferred_element_type
    if feature_group_count == 1:
        return _conv(lhs, rhs, *static)
    if rhs.shape[2] == 1 and lhs.dtype == rhs.dtype == jnp.float32:
        return _depthwise_conv(lhs, rhs, *static[:3])
    groups = zip(*(jnp.split(x, feature_group_count, axis=3) for x in (lhs, rhs)), strict=True)
    return jnp.concatenate([_conv(*group, *static) for group in groups], axis=3)


def _conv(images, kernel, strides, padding, dilation, precision, out_dtype):
    """Convolves [B, H, W, I] images with an [h, w, I, O] kernel to [B, H', W', O]."""
    if _is_plain(images, kernel, strides, dilation, out_dtype) and winograd.is_applicable(
        images.shape, kernel.shape, padding, images.dtype
    ):
        return winograd.conv(images, kernel, padding, precision)
    return _canonical_conv(images, kernel, strides, padding, dilation, precision, out_dtype)


def _depthwise_conv(images, kernel, strides, padding, dilation):
    """Convolves each channel of [B, H, W, I] with its own filters of [h, w, 1, O], tap by tap.

    XLA's library has no depthwise convolution, and one call per channel would take I calls.
    """
    multiplier = kernel.shape[3] // images.shape[3]
    images = jnp.repeat(images, multiplier, axis=3)
    images = lax.pad(
        images, jnp.zeros((), images.dtype), [(0,) * 3, *((*p, 0) for p in padding), (0,) * 3]
    )
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4, 5, 6))
def _canonical_conv(images, kernel, strides, padding, dilation, precision, out_dtype):
    """Computes the convolution of `_conv` and its gradients by library calls."""
    return _forward(images, kernel, strides, padding, dilation, precision, out_dtype)[0]


def _forward(images, kernel, strides, padding, dilation, precision, out_dtype):
    if _is_plain(images, kernel, strides, dilation, out_dtype) and stem.is_applicable(
        images.shape, kernel.shape, padding, images.dtype
    ):
        return stem.convolve(images, kernel, padding, precision), (images, kernel)
    out = _library_conv(
        images, kernel, strides, padding, rhs_dilation=dilation,
        precision=precision, preferred_element_type=out_dtype,
    )  # fmt: skip
    return out, (images, kernel)


def _is_plain(images, kernel, strides, dilation, out_dtype) -> bool:
    return (
        strides == dilation == (1, 1)
        and images.dtype == kernel.dtype
        and (out_dtype is None or out_dtype == images.dtype)
    )


def _library_conv(
    images, kernel, strides, padding, lhs_dilation=(1, 1), rhs_dilation=(1, 1), **options
):
    """Convolves NHWC images with an HWIO kernel in a form whose order XLA does not change."""
    num_pixels = math.prod(images.shape[1:3])
    if num_pixels == 1:
        return _one_pixel_conv(images, kernel, strides, padding, rhs_dilation, **options)
    # With a negative low padding, XLA's library call reads out of bounds.
    if num_pixels < math.prod(kernel.shape[:2]) or min(low for low, _ in padding) < 0:
        between = ((*sides, d - 1) for sides, d in zip(padding, lhs_dilation, strict=True))
        images = lax.pad(images, jnp.zeros((), images.dtype), [(0, 0, 0), *between, (0, 0, 0)])
        images = lax.optimization_barrier(images)  # keeps XLA from fusing the padding back in
        padding, lhs_dilation = ((0, 0),) * 2, (1, 1)
    return lax.conv_general_dilated(
        images, kernel, strides, padding, lhs_dilation, rhs_dilation, dimension_numbers=_NHWC,
        **options,
    )  # fmt: skip


def _one_pixel_conv(images, kernel, strides, padding, dilation, **options):
    """Convolves images of one pixel: a product with the taps of the kernel that cover the pixel."""
    around = [(0, 0, 0)]
    for axis in (0, 1):
        (low, high), stride, step = padding[axis], strides[axis], dilation[axis]
        size = kernel.shape[axis]
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
    out = jnp.einsum("bi,hwio->bhwo", images[:, 0, 0], kernel, **options)
    return lax.pad(out, jnp.zeros((), out.dtype), [*around, (0, 0, 0)])


def _backward(strides, padding, dilation, precision, out_dtype, residuals, grad):
    images, kernel = residuals
    grad = grad.astype(images.dtype)
    has_form = images.dtype == kernel.dtype and strided.is_applicable(
        images.shape, kernel.shape, strides, padding, dilation, images.dtype
    )
    # (extent of the dilated kernel, size of the images, size of the output) per dimension.
    geometry = [
        ((kernel.shape[i] - 1) * dilation[i] + 1, images.shape[i + 1], grad.shape[i + 1])
        for i in (0, 1)
    ]
    if has_form and max(strides) > 1:
        images_grad = strided.images_gradient(
            kernel, grad, images.shape[1:3], strides, padding, precision
        )
    else:
        images_grad = _library_conv(
            grad,
            lax.rev(kernel, (0, 1)).transpose(0, 1, 3, 2),
            (1, 1),
            [
                (k - 1 - low, size + low - (out - 1) * stride - 1)
                for (k, size, out), (low, _), stride in zip(geometry, padding, strides, strict=True)
            ],
            lhs_dilation=strides,
            rhs_dilation=dilation,
            precision=precision,
        )
    if has_form:
        kernel_grad = strided.kernel_gradient(
            images, grad, kernel.shape[:2], strides, padding, precision
        )
    else:
        kernel_grad = _library_conv(
            images.transpose(3, 1, 2, 0),
            grad.transpose(1, 2, 0, 3),
            dilation,
            [
                (low, (out - 1) * stride + k - size - low)
                for (k, size, out), (low, _), stride in zip(geometry, padding, strides, strict=True)
            ],
            rhs_dilation=strides,
            precision=precision,
        ).transpose(1, 2, 0, 3)
    return images_grad, kernel_grad.astype(kernel.dtype)


_canonical_conv.defvjp(_forward, _backward)
