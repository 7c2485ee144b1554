"""Convolution in the form that each platform runs fastest: a drop-in for lax's in Flax's layers.

On CPUs, these forms replace `jax.lax.conv_general_dilated`:

- 3x3 kernels with stride 1: `winograd`, which halves the multiplications.
- Depthwise convolutions: `depthwise`, tap by tap.
- All others: `library`, which calls XLA's library even inside loops, with faster forms for images
  with few channels (`stem`), for the gradients with strides and of 1x1 kernels (`strided`), and for
  images of one pixel.

All other platforms run `jax.lax.conv_general_dilated` unchanged.

`jax.lax.platform_dependent` selects the form when a program is lowered. A program for GPUs holds
only lax's convolutions, wherever it was traced, and one for CPUs holds no conditional. Both forms
are traced, with their gradients, but `jax.jit` traces each of them once for all layers of the same
shape. Tracing and lowering a training step of resnet18 take 2.1 s of CPU time, 3.1 s without
`jax.jit`, and took 2.2 s when the form was selected while tracing; those of cnn3, in which no two
layers have the same shape, take 1.0 s instead of 0.85 s (benchmarks/results/checks/dispatch.txt).
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from cifar_jax.ops import depthwise, library, winograd
from cifar_jax.ops.options import NHWC, Options, is_plain


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
    """Computes `jax.lax.conv_general_dilated` in the form that the platform runs fastest.

    The arguments and the result are the same, so that it can be passed as
    `nnx.Conv(conv_general_dilated=...)`. Arguments for which no other form exists, such as those of
    one-dimensional convolutions, are passed on to lax. For all others, only reverse-mode
    differentiation is defined.
    """
    ones = (1,) * (lhs.ndim - 2)
    spec = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    if (
        lhs.ndim != 4
        or spec != lax.conv_dimension_numbers(lhs.shape, rhs.shape, NHWC)
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
    options = Options(tuple(window_strides), padding, dilation, precision, preferred_element_type)
    return _conv(lhs, rhs, options, feature_group_count)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _conv(images, kernel, options: Options, num_groups: int):
    """Convolves [B, H, W, I] images with an [h, w, I / groups, O] kernel to [B, H', W', O]."""

    def on_cpu(images, kernel):
        if num_groups == 1:
            return _ungrouped_on_cpu(images, kernel, options)
        if kernel.shape[2] == 1 and images.dtype == kernel.dtype == jnp.float32:
            return depthwise.conv(images, kernel, options)
        groups = zip(*(jnp.split(x, num_groups, axis=3) for x in (images, kernel)), strict=True)
        return jnp.concatenate([_ungrouped_on_cpu(*group, options) for group in groups], axis=3)

    def elsewhere(images, kernel):
        return lax.conv_general_dilated(
            images,
            kernel,
            options.strides,
            options.padding,
            rhs_dilation=options.dilation,
            dimension_numbers=NHWC,
            feature_group_count=num_groups,
            precision=options.precision,
            preferred_element_type=options.dtype,
        )

    return lax.platform_dependent(images, kernel, cpu=on_cpu, default=elsewhere)


def _ungrouped_on_cpu(images, kernel, options: Options):
    if is_plain(images, kernel, options) and winograd.is_applicable(
        images.shape, kernel.shape, options.padding, images.dtype
    ):
        return winograd.conv(images, kernel, options.padding, options.precision)
    return library.conv(images, kernel, options)
