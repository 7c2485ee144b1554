"""Compiles every fast form as shipped: inside a loop, and with LLVM's optimization.

The other tests compile without the latter; see conftest.py.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from test_conv_property import NHWC, all_three, reference

from cifar_jax.models.layers import BatchNorm
from cifar_jax.ops import stem, strided, winograd
from cifar_jax.ops.conv import conv_general_dilated
from cifar_jax.ops.dense import dot_general
from cifar_jax.ops.pooling import max_pool
from cifar_jax.runtime import compiler

pytestmark = pytest.mark.usefixtures("optimized")

SAME = ((1, 1), (1, 1))
VALID = ((0, 0), (0, 0))
# (images, kernel, strides, padding, groups).
CONVOLUTIONS = {
    "winograd": ((2, 8, 9, 16), (3, 3, 16, 20), (1, 1), SAME, 1),
    "stem": ((2, 16, 15, 3), (3, 3, 3, 8), (1, 1), SAME, 1),
    "strided": ((2, 8, 9, 16), (3, 3, 16, 12), (2, 2), SAME, 1),
    "1x1 kernel": ((2, 8, 9, 16), (1, 1, 16, 12), (1, 1), VALID, 1),
    "one pixel": ((4, 1, 1, 16), (3, 3, 16, 12), (1, 1), SAME, 1),
    "small images": ((4, 2, 2, 16), (3, 3, 16, 12), (1, 1), SAME, 1),
    "library": ((2, 9, 8, 8), (5, 5, 8, 12), (1, 1), SAME, 1),
    "depthwise": ((2, 8, 9, 6), (3, 3, 1, 12), (2, 2), SAME, 6),
}


def run_in_loop(function, *args):
    """Compiles as training does and returns the results of `function`, called within a loop."""

    def looped(*args):
        _, results = lax.scan(lambda _, x: (None, function(*x)), None, args)
        return results

    args = [jnp.asarray(x, jnp.float32)[None] for x in args]
    results = compiler.compile_for_backend(jax.jit(looped).lower(*args))(*args)
    return [np.float64(x[0]) for x in jax.tree.leaves(results)]


def relative_error(ours, expected):
    assert ours.shape == expected.shape
    return np.linalg.norm(ours - expected) / np.linalg.norm(expected)


def test_convolutions_take_the_forms_that_they_are_named_after():
    shapes = {name: case[:2] for name, case in CONVOLUTIONS.items()}
    assert winograd.is_applicable(*shapes["winograd"], SAME, jnp.float32)
    assert stem.is_applicable(*shapes["stem"], SAME, jnp.float32)
    for name in ("strided", "1x1 kernel"):
        *_, strides, padding, _ = CONVOLUTIONS[name]
        assert strided.is_applicable(*shapes[name], strides, padding, (1, 1), jnp.float32)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution_equals_lax_in_float64(name):
    *shapes, strides, padding, groups = CONVOLUTIONS[name]
    rng = np.random.default_rng(0)
    images, kernel = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    options = dict(
        window_strides=strides, padding=padding, rhs_dilation=(1, 1),
        feature_group_count=groups, dimension_numbers=NHWC,
    )  # fmt: skip
    ours = run_in_loop(partial(all_three, partial(conv_general_dilated, **options)), images, kernel)
    for one, expected in zip(ours, reference(images, kernel, options), strict=True):
        assert relative_error(one, expected) < 1e-6


def test_dense_layer_equals_numpy_in_float64():
    rng = np.random.default_rng(0)
    inputs, kernel, grad = (
        rng.normal(size=shape).astype(np.float32) for shape in ((8, 64), (64, 32), (8, 32))
    )

    def run(inputs, kernel, grad):
        dot = partial(dot_general, dimension_numbers=(((1,), (0,)), ((), ())))
        out, pullback = jax.vjp(dot, inputs, kernel)
        return out, *pullback(grad)

    ours = run_in_loop(run, inputs, kernel, grad)
    inputs, kernel, grad = (np.float64(x) for x in (inputs, kernel, grad))
    for one, expected in zip(ours, (inputs @ kernel, grad @ kernel.T, inputs.T @ grad)):
        assert relative_error(one, expected) < 1e-6


@pytest.mark.parametrize(("window", "stride", "padding"), [(2, 2, 0), (3, 2, 1)])
def test_pooling_equals_reduce_window(window, stride, padding):
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 16)).astype(np.float32)

    def run(pool, x):
        out, pullback = jax.vjp(pool, x)
        return out, *pullback(jnp.sin(out))

    def reduce_window(x):
        sides = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        sizes = (1, window, window, 1), (1, stride, stride, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, *sizes, sides)

    ours = run_in_loop(partial(run, lambda x: max_pool(x, window, stride, padding)), x)
    for one, expected in zip(ours, run(reduce_window, x), strict=True):
        assert relative_error(one, np.float64(expected)) < 1e-6


def test_batch_norm_in_a_loop_equals_nnx():
    x, weights = np.random.default_rng(0).normal(3, 2, size=(2, 4, 8, 8, 16)).astype(np.float32)

    def run(kind, x, weights):
        def apply(x):
            norm = kind(16, momentum=0.9, rngs=nnx.Rngs(0))
            return norm(x), (norm.mean[...], norm.var[...])

        out, pullback, statistics = jax.vjp(apply, x, has_aux=True)
        return out, *pullback(weights), *statistics

    ours = run_in_loop(partial(run, BatchNorm), x, weights)
    for one, expected in zip(ours, run(nnx.BatchNorm, x, weights), strict=True):
        assert relative_error(one, np.float64(expected)) < 1e-5
