"""Convolution in the form that each platform runs fastest, to replace lax's in Flax's layers.

On CPUs, these forms replace `jax.lax.conv_general_dilated`:

- 3x3 kernels with stride 1: `winograd`, which halves the multiplications.
- Dilated kernels with stride 1: `dilated`, which reduces them to kernels without dilation.
- Depthwise convolutions: `depthwise`, tap by tap, with the images' gradient in the same form.
- All others: `library`, which calls XLA's library even inside loops, with faster forms for images
  with few channels (`stem`), for gradients with strides or 1x1 kernels (`strided`), and for images
  of one pixel.

All other platforms run `jax.lax.conv_general_dilated` unchanged.

`jax.lax.platform_dependent` selects the form when a program is lowered. A program for GPUs holds
only lax's convolutions, wherever it was traced, and one for CPUs holds no conditional. Both forms
are traced and differentiated. To save time, the forward and backward passes of `winograd` and
`library` are wrapped in `jax.jit`, which traces each once for all layers of the same shape. Tracing
and lowering a training step of resnet18 then takes 2.5 s of CPU time instead of 3.7 s. When the
form was selected while tracing, it took 2.6 s (benchmarks/results/checks/dispatch.txt).
"""

import functools

import jax.numpy as jnp
from jax import lax

from cifar_jax.ops import depthwise, dilated, library, winograd
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
    reference = functools.partial(
        lax.conv_general_dilated,
        window_strides=window_strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        batch_group_count=batch_group_count,
        precision=precision,
        preferred_element_type=preferred_element_type,
        out_sharding=out_sharding,
    )
    ones = (1,) * (lhs.ndim - 2)
    spec = lax.conv_dimension_numbers(lhs.shape, rhs.shape, dimension_numbers)
    if (
        lhs.ndim != 4
        or spec != lax.conv_dimension_numbers(lhs.shape, rhs.shape, NHWC)
        or tuple(lhs_dilation or ones) != ones
        or batch_group_count != 1
        or out_sharding is not None
    ):
        return reference(lhs, rhs)
    dilation = tuple(rhs_dilation or ones)
    if isinstance(padding, str):
        extent = [(k - 1) * d + 1 for k, d in zip(rhs.shape[:2], dilation, strict=True)]
        padding = lax.padtype_to_pads(lhs.shape[1:3], extent, window_strides, padding)
    padding = tuple((int(low), int(high)) for low, high in padding)
    options = Options(tuple(window_strides), padding, dilation, precision, preferred_element_type)
    on_cpu = functools.partial(_conv_on_cpu, options=options, num_groups=feature_group_count)
    return lax.platform_dependent(lhs, rhs, cpu=on_cpu, default=reference)


def _conv_on_cpu(images, kernel, options: Options, num_groups: int):
    """Convolves [B, H, W, I] images with an [h, w, I / groups, O] kernel to [B, H', W', O]."""
    if num_groups == 1:
        return _ungrouped_conv(images, kernel, options)
    if kernel.shape[2] == 1 and jnp.issubdtype(images.dtype, jnp.floating):
        return depthwise.conv(images, kernel, options)
    groups = zip(*(jnp.split(x, num_groups, axis=3) for x in (images, kernel)), strict=True)
    return jnp.concatenate([_ungrouped_conv(*group, options) for group in groups], axis=3)


def _ungrouped_conv(images, kernel, options: Options):
    if dilated.is_applicable(images.shape, options):
        return dilated.conv(images, kernel, options, _ungrouped_conv)
    if is_plain(images, kernel, options) and winograd.is_applicable(
        images.shape, kernel.shape, options.padding, images.dtype
    ):
        return winograd.conv(images, kernel, options.padding, options.precision)
    return library.conv(images, kernel, options)
