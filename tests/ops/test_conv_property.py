"""Compares convolutions of random shapes, in every context, with the direct sum in float64.

`python -m pytest tests/ops/test_conv_property.py --shapes 200 -s` draws 200 shapes and prints the
largest error of each context.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from test_fast_forms import winograd_rounding_bound

from cifar_jax.ops.conv import conv_general_dilated
from cifar_jax.runtime import compiler

NHWC = ("NHWC", "HWIO", "NHWC")
CONTEXTS = ("top level", "scan", "cond", "vmap")


def draw(seed):
    """Draws a general case, one with many channels and no dilation, or a usual 3x3 convolution."""
    rng = np.random.default_rng(seed)
    pick = lambda *values: int(rng.choice(values))  # noqa: E731
    if seed % 3:
        taps, strides, dilations = (
            tuple(int(n) for n in rng.choice(values, 2))
            for values in ([1, 2, 3, 5, 7], [1, 1, 2, 3], [1, 1, 2, 3])
        )
        groups, multiple = pick(1, 1, 1, 2, 3, 4), pick(1, 2, 3)
        channels = groups * pick(1, 2, 5, 12)
        features = groups * multiple
        if seed % 3 == 1:  # as in layers that reduce the image size
            dilations, groups = (1, 1), 1
            channels, features = pick(8, 16, 32), pick(8, 16, 32)
    else:
        taps, strides, dilations, groups = (3, 3), (1, 1), (1, 1), 1
        channels, features = pick(3, 16, 32, 64, 128), pick(8, 16, 32, 64, 128)
    reach = [(k - 1) * d + 1 for k, d in zip(taps, dilations)]
    padding = rng.choice(["SAME", "VALID", "explicit"])
    if padding == "explicit":
        padding = tuple((int(a), int(b)) for a, b in rng.integers(0, 4, (2, 2)))
    size = [int(rng.integers(1 if padding == "SAME" else r, r + 12)) for r in reach]
    images = rng.normal(size=(pick(1, 2, 5), *size, channels))
    kernel = rng.normal(size=(*taps, channels // groups, features))
    return images, kernel, dict(
        window_strides=strides, padding=str(padding) if isinstance(padding, str) else padding,
        rhs_dilation=dilations, feature_group_count=groups, dimension_numbers=NHWC,
    )  # fmt: skip


def all_three(conv, images, kernel):
    """Returns the output and, for a fixed output gradient, the gradients of images and kernel."""
    out, pullback = jax.vjp(conv, images, kernel)
    grad = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
    return out, *pullback(grad.astype(out.dtype))


def in_every_context(conv, images, kernel, is_true):
    """Returns {context: results of `all_three`}."""
    f = partial(all_three, conv)
    _, looped = lax.scan(lambda _, x: (None, f(x, kernel)), None, images[None])
    nothing = lambda *args: jax.tree.map(jnp.zeros_like, f(*args))  # noqa: E731
    chosen = lax.cond(is_true, f, nothing, images, kernel)
    mapped = jax.vmap(f, in_axes=(0, None))(jnp.stack([images[::-1], images]), kernel)
    first, second = jax.tree.map(lambda x: x[0], looped), jax.tree.map(lambda x: x[1], mapped)
    return dict(zip(CONTEXTS, (f(images, kernel), first, chosen, second), strict=True))


def reference(images, kernel, options):
    """Computes `all_three` in float64.

    The images are padded beforehand, because lax's gradient of wide paddings is wrong on CPUs.
    """
    padding = options["padding"]
    if isinstance(padding, str):
        reach = [(k - 1) * d + 1 for k, d in zip(kernel.shape, options["rhs_dilation"])]
        padding = lax.padtype_to_pads(images.shape[1:3], reach, options["window_strides"], padding)

    def conv(images, kernel):
        padded = jnp.pad(images, [(0, 0), *padding, (0, 0)])
        return lax.conv_general_dilated(padded, kernel, **options | {"padding": "VALID"})

    with jax.enable_x64(True):
        found = jax.jit(partial(all_three, conv))(jnp.float64(images), jnp.float64(kernel))
        return [np.asarray(x) for x in found]  # not jax arrays, which are subtracted in float32


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
@pytest.mark.scalable
def test_random_shapes_inside_and_outside_scan_cond_and_vmap(pytestconfig):
    worst = {}
    for seed in range(pytestconfig.getoption("shapes")):
        images, kernel, options = draw(seed)
        images, kernel = np.float32(images), np.float32(kernel)
        expected = reference(images, kernel, options)
        # The output sums over the channels, and the gradient of the images over the features.
        tolerance = max(1e-6, winograd_rounding_bound(max(kernel.shape[2:])))
        conv = partial(conv_general_dilated, **options)
        lowered = jax.jit(partial(in_every_context, conv)).lower(images, kernel, True)
        found = compiler.compile_for_backend(lowered)(images, kernel, True)
        for context, values in found.items():
            for name, ours, exact in zip(("output", "images", "kernel"), values, expected):
                assert ours.shape == exact.shape
                error = np.linalg.norm(np.float64(ours) - exact)
                error /= max(np.linalg.norm(exact), 1e-300)
                what = f"seed {seed}, {context}, {name}: {images.shape} by {kernel.shape} {options}"
                worst[context, name] = max(worst.get((context, name), (0, "")), (error, what))
                assert error <= tolerance, f"{error:.2e}: {what}"
        if seed % 20 == 19:
            jax.clear_caches()
    for (context, name), (error, what) in worst.items():
        print(f"{context:<10}{name:<7}{error:.1e}  {what}")
