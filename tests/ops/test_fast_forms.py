"""Compares the fast forms of convolution and matrix product on CPUs with NumPy in float64."""

import functools
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lowering import count_operations, program

from cifar_jax.ops import stem, strided, winograd
from cifar_jax.ops.conv import conv_general_dilated
from cifar_jax.ops.dense import dot_general

NHWC = ("NHWC", "HWIO", "NHWC")
pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="fast forms are for CPUs")


def reference(images, kernel, grad, padding, strides=(1, 1)):
    """Returns the output and the gradients of images and kernel, summed by taps in float64."""
    images, kernel, grad = (np.float64(x) for x in (images, kernel, grad))
    wide = [(low, max(high, 0)) for low, high in padding]
    padded = np.pad(images, ((0, 0), *wide, (0, 0)))
    down, right = (n * stride for n, stride in zip(grad.shape[1:3], strides))
    out, kernel_grad, padded_grad = np.zeros_like(grad), np.zeros_like(kernel), 0 * padded
    for i, j in np.ndindex(kernel.shape[:2]):
        window = np.s_[:, i : i + down : strides[0], j : j + right : strides[1]]
        out += padded[window] @ kernel[i, j]
        kernel_grad[i, j] = np.einsum("bhwi,bhwo->io", padded[window], grad)
        padded_grad[window] += grad @ kernel[i, j].T
    (top, _), (left, _) = padding
    return out, padded_grad[:, top:, left:][:, : images.shape[1], : images.shape[2]], kernel_grad


def compare(size, features, taps, padding, strides=(1, 1), batch=2, seed=0, tolerance=1e-6):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(batch, *size, features[0])).astype(np.float32)
    kernel = rng.normal(size=(*taps, *features)).astype(np.float32)
    out_size = [
        (s + sum(p) - k) // stride + 1 for s, p, k, stride in zip(size, padding, taps, strides)
    ]
    grad = rng.normal(size=(batch, *out_size, features[1])).astype(np.float32)

    @jax.jit
    def ours(images, kernel, grad):
        def conv(images, kernel):
            return conv_general_dilated(images, kernel, strides, padding, dimension_numbers=NHWC)

        out, pullback = jax.vjp(conv, images, kernel)
        return out, *pullback(grad)

    for one, other in zip(
        ours(images, kernel, grad), reference(images, kernel, grad, padding, strides)
    ):
        assert one.dtype == np.float32 and one.shape == other.shape
        error = np.abs(one - other)
        assert np.linalg.norm(error) <= tolerance * np.linalg.norm(other)
        assert error.max() <= 3 * tolerance * np.abs(other).max()


@pytest.mark.parametrize(
    ("size", "padding"),
    [
        ((3, 3), ((1, 1), (1, 1))),
        ((5, 4), ((0, 0), (1, 1))),
        ((4, 6), ((1, 1), (2, 0))),
        ((5, 9), ((0, 2), (0, 2))),
        ((6, 9), ((2, 0), (0, 0))),
        ((5, 7), ((0, 0), (2, 2))),
        ((4, 10), ((1, 1), (2, 1))),
        ((7, 13), ((1, 0), (0, 1))),
    ],
)
def test_winograd_equals_the_sum_of_taps(size, padding):
    assert winograd.is_applicable((2, *size, 16), (3, 3, 16, 33), padding, jnp.float32)
    compare(size, (16, 33), (3, 3), padding)


def winograd_rounding_bound(num_channels):
    """Returns a bound on the relative error (2-norm) of Winograd's form due to float32 rounding.

    Each product of a tile is a sum over three rows and all channels. Rounding errors of independent
    signs grow with the square root of the number of terms, and they are largest if one accumulator
    adds all terms in order. (Wide vectors and small caches split the sum, which reduces the error.)
    With one accumulator in NumPy, the error is eps * sqrt(2 + num_channels / 2) within 3% for 16 to
    512 channels (benchmarks/results/checks/winograd_rounding.txt). The bound adds 15%.
    """
    return 1.15 * np.finfo(np.float32).eps * np.sqrt(2 + num_channels / 2)


def check_winograd_rounding(num_channels):
    features, padding = (num_channels, num_channels), ((1, 1), (1, 1))
    assert winograd.is_applicable((4, 4, 4, num_channels), (3, 3, *features), padding, jnp.float32)
    tolerance = winograd_rounding_bound(num_channels)
    compare((4, 4), features, (3, 3), padding, batch=4, tolerance=tolerance)


@pytest.mark.parametrize("num_channels", [16, 64, 256])
def test_winograd_rounding_grows_with_the_root_of_the_number_of_channels(num_channels):
    check_winograd_rounding(num_channels)


def test_winograd_rounding_on_cpus_without_avx512():
    flags = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_max_isa=AVX2"
    program = "import test_fast_forms; test_fast_forms.check_winograd_rounding(256)"
    subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=300,
    )


@pytest.mark.parametrize("num_channels", [16, 64, 256])
def test_winograd_rounding_with_one_accumulator_on_any_machine(num_channels):
    """Sums in the order with the largest error, so that the bound is tested on every machine."""
    rng = np.random.default_rng(0)
    num_tiles = num_features = 32
    images = rng.normal(size=(num_tiles, 3, 6, num_channels)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, num_channels, num_features)).astype(np.float32)

    def weighted(weights, arrays):
        return sum(np.float32(weight) * array for weight, array in zip(weights, arrays) if weight)

    products = []
    for input_weights, kernel_weights in zip(winograd._INPUT, winograd._KERNEL):
        inputs = weighted(input_weights, np.moveaxis(images, 2, 0)).reshape(num_tiles, -1)
        taps = weighted(kernel_weights, np.moveaxis(kernel, 1, 0)).reshape(-1, num_features)
        total = np.zeros((num_tiles, num_features), np.float32)
        for column, row in zip(inputs.T, taps):  # a fused multiply-add rounds once
            total = np.float32(total + np.outer(np.float64(column), np.float64(row)))
        products.append(total)
    outputs = np.stack([weighted(weights, products) for weights in winograd._OUTPUT])
    windows = np.stack([images[:, :, i : i + 3] for i in range(4)])
    expected = np.einsum("tnhwi,hwio->tno", np.float64(windows), np.float64(kernel), optimize=True)
    error = np.linalg.norm(outputs - expected) / np.linalg.norm(expected)
    bound = winograd_rounding_bound(num_channels)
    assert 0.8 * bound <= error <= bound


@pytest.mark.parametrize(
    ("size", "features", "taps", "padding"),
    [
        ((32, 32), (3, 32), (3, 3), ((1, 1), (1, 1))),
        ((11, 13), (1, 5), (5, 5), ((0, 0), (0, 0))),
        ((9, 14), (4, 7), (3, 2), ((2, 0), (0, 3))),
        ((8, 7), (2, 3), (3, 3), ((5, 1), (3, 6))),
    ],
)
def test_stem_equals_the_sum_of_taps(size, features, taps, padding):
    assert stem.is_applicable((2, *size, features[0]), (*taps, *features), padding, jnp.float32)
    compare(size, features, taps, padding)


def test_winograd_halves_the_products():
    """Four outputs take 18 products instead of 36, in the forward and the backward pass."""

    def loss(images, kernel):
        out = conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=NHWC)
        return jnp.sum(out**2)

    images, kernel = jnp.ones((2, 8, 8, 16)), jnp.ones((3, 3, 16, 16))
    text = program(jax.grad(loss, (0, 1)), images, kernel)
    assert count_operations(text)["convolution"] == 3 * 6
    kernels = re.findall(r"convolution\(.*\(tensor<.*>, tensor<(.*)>\) ->", text)
    assert len(kernels) == 3 * 6 and not any(kernel.startswith("3x3x") for kernel in kernels)


@pytest.mark.parametrize(
    ("size", "taps", "strides", "padding"),
    [
        ((8, 8), (3, 3), (2, 2), ((1, 1), (1, 1))),
        ((8, 8), (3, 3), (2, 2), ((0, 1), (0, 1))),
        ((7, 9), (3, 3), (2, 2), ((1, 1), (1, 1))),
        ((9, 8), (5, 3), (2, 2), ((2, 2), (1, 1))),
        ((9, 11), (3, 2), (3, 1), ((2, 0), (0, 3))),
        ((9, 11), (1, 3), (2, 3), ((0, 0), (5, 1))),
        ((9, 11), (2, 2), (3, 4), ((0, 0), (0, 0))),  # pixels without an output
        ((3, 3), (3, 3), (2, 2), ((0, 0), (0, 0))),  # one output
        ((2, 2), (3, 3), (2, 2), ((1, 1), (1, 1))),
        ((9, 9), (3, 3), (2, 2), ((1, -2), (0, -1))),
        ((6, 5), (1, 1), (1, 1), ((0, 0), (0, 0))),
        ((6, 5), (1, 1), (2, 2), ((0, 0), (0, 0))),
        ((6, 5), (1, 1), (1, 1), ((1, 2), (0, 1))),
    ],
)
def test_strided_gradients_equal_the_sum_of_taps(size, taps, strides, padding):
    assert strided.is_applicable(
        (2, *size, 12), (*taps, 12, 5), strides, padding, (1, 1), jnp.dtype("float32")
    )
    compare(size, (12, 5), taps, padding, strides)


def test_strided_gradients_do_not_multiply_by_zeros():
    """Phases with several taps take a convolution each; the one with one tap, a matrix product."""

    def loss(images, kernel):
        padding = ((1, 1), (1, 1))
        out = conv_general_dilated(images, kernel, (2, 2), padding, dimension_numbers=NHWC)
        return jnp.sum(out**2)

    images, kernel = jnp.ones((2, 8, 8, 16)), jnp.ones((3, 3, 16, 16))
    text = program(jax.grad(loss, (0, 1)), images, kernel)
    counts = count_operations(text)
    assert counts["convolution"] == 1 + 3 and counts["dot_general"] == 1 + 1
    assert "dilate = [2, 2]" not in text


@pytest.mark.parametrize(
    "change",
    [
        dict(image_shape=(2, 1, 1, 16)),
        dict(kernel_shape=(3, 3, 3, 16)),
        dict(kernel_shape=(7, 7, 16, 16)),
        dict(strides=(1, 1)),
        dict(padding=((-1, 1), (1, 1))),
        dict(dilation=(2, 1)),
        dict(dtype=jnp.dtype("bfloat16")),
        dict(dtype=jnp.dtype("float64")),
    ],
)
def test_strided_is_not_applicable(change):
    case = dict(
        image_shape=(2, 8, 8, 16), kernel_shape=(3, 3, 16, 16), strides=(2, 2),
        padding=((1, 1), (1, 1)), dilation=(1, 1), dtype=jnp.dtype("float32"),
    )  # fmt: skip
    assert strided.is_applicable(**case) and not strided.is_applicable(**case | change)


@pytest.mark.parametrize(
    ("image_shape", "kernel_shape", "padding"),
    [
        ((2, 8, 8, 8), (3, 3, 8, 32), ((1, 1), (1, 1))),  # few channels
        ((2, 2, 2, 64), (3, 3, 64, 64), ((1, 1), (1, 1))),  # half of each tile is wasted
        ((2, 8, 8, 64), (1, 1, 64, 64), ((0, 0), (0, 0))),
        ((2, 8, 8, 64), (5, 5, 64, 64), ((2, 2), (2, 2))),
        ((2, 8, 8, 64), (3, 3, 64, 64), ((3, 3), (3, 3))),  # the gradient's padding is negative
        ((2, 8, 8, 64), (3, 3, 64, 64), ((2, 1), (1, 1))),  # more rows out than in
    ],
)
def test_winograd_is_not_applicable(image_shape, kernel_shape, padding):
    assert not winograd.is_applicable(image_shape, kernel_shape, padding, jnp.float32)
    compare(image_shape[1:3], kernel_shape[2:], kernel_shape[:2], padding)


@pytest.mark.parametrize("features", [(16, 20), (3, 20)])
def test_under_vmap_in_a_loop_and_with_a_checkpoint(features):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 2, 8, 8, features[0])).astype(np.float32)
    kernel = rng.normal(size=(3, 3, *features)).astype(np.float32)

    def loss(conv, kernel, images):
        out = conv(images, kernel, (1, 1), "SAME", dimension_numbers=NHWC, precision="highest")
        return jnp.sum(jnp.sin(out))

    lax_grad = jax.grad(functools.partial(loss, lax.conv_general_dilated))
    ours = jax.grad(jax.checkpoint(functools.partial(loss, conv_general_dilated)))
    expected = np.stack([lax_grad(kernel, one) for one in images])
    together = jax.jit(jax.vmap(ours, (None, 0)))(kernel, images)
    _, one_by_one = lax.scan(lambda kernel, one: (kernel, ours(kernel, one)), kernel, images)
    for found in (together, one_by_one):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("features", [(16, 16), (3, 16)])
@pytest.mark.parametrize("stride", [1, 2])
def test_empty_batch(stride, features):
    images, kernel = jnp.ones((0, 8, 8, features[0])), jnp.ones((3, 3, *features))

    def conv(images, kernel):
        strides = (stride, stride)
        return conv_general_dilated(images, kernel, strides, "SAME", dimension_numbers=NHWC)

    out, pullback = jax.vjp(conv, images, kernel)
    images_grad, kernel_grad = pullback(out)
    assert out.shape == (0, 8 // stride, 8 // stride, 16)
    assert images_grad.shape == images.shape and not kernel_grad.any()


def test_winograd_requires_float32():
    shapes = (2, 8, 8, 64), (3, 3, 64, 64), ((1, 1), (1, 1))
    assert winograd.is_applicable(*shapes, jnp.float32)
    assert not winograd.is_applicable(*shapes, jnp.bfloat16) and not winograd.is_applicable(
        *shapes, jnp.float64
    )


# With these inputs, the gradient is transposed in 1, 3 and 64 blocks of rows.
@pytest.mark.parametrize("num_inputs", [48, 600, 64 * 256 + 100])
def test_dense_layers_gradients(num_inputs):
    rng = np.random.default_rng(0)
    shapes = (4, num_inputs), (num_inputs, 20), (4, 20)
    inputs, kernel, grad = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    contract = (((1,), (0,)), ((), ()))
    out, pullback = jax.vjp(lambda *args: dot_general(*args, contract), inputs, kernel)
    expected = inputs @ kernel, grad @ kernel.T, inputs.T @ grad
    for ours, theirs in zip((out, *pullback(grad)), expected):
        atol = 1e-6 * np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=atol)


def test_dense_gradients_do_not_contract_over_kernel_columns():
    def loss(inputs, kernel):
        return jnp.sum(dot_general(inputs, kernel, (((1,), (0,)), ((), ()))) ** 2)

    program = jax.jit(jax.grad(loss, (0, 1))).lower(jnp.ones((8, 64)), jnp.ones((64, 32)))
    products = [line for line in program.compile().as_text().splitlines() if " dot(" in line]
    assert products and not any("rhs_contracting_dims={1}" in line for line in products)


@pytest.mark.parametrize(
    ("shapes", "numbers"),
    [
        (((3, 5, 8), (4, 8)), (((2,), (1,)), ((), ()))),
        (((5, 8), (4, 8)), (((1,), (1,)), ((), ()))),
        (((5, 8), (8, 5)), (((1,), (0,)), ((0,), (1,)))),  # batched
    ],
)
def test_other_products_equal_lax(shapes, numbers):
    rng = np.random.default_rng(0)
    lhs, rhs = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    np.testing.assert_array_equal(
        dot_general(lhs, rhs, numbers), lax.dot_general(lhs, rhs, numbers)
    )
