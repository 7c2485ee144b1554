"""The forms of convolution and product that CPUs run faster, beside NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cifar_jax.models import stem, winograd
from cifar_jax.models.conv import conv_general_dilated
from cifar_jax.models.dense import dot_general

NHWC = ("NHWC", "HWIO", "NHWC")
pytestmark = pytest.mark.skipif(jax.default_backend() != "cpu", reason="these are for CPUs")


def reference(images, kernel, grad, padding):
    """Returns result and gradients of images and kernel, summed tap by tap in float64."""
    images, kernel, grad = (np.float64(x) for x in (images, kernel, grad))
    padded = np.pad(images, ((0, 0), *padding, (0, 0)))
    height, width = grad.shape[1:3]
    out, kernel_grad, padded_grad = np.zeros_like(grad), np.zeros_like(kernel), 0 * padded
    for i, j in np.ndindex(kernel.shape[:2]):
        window = np.s_[:, i : i + height, j : j + width]
        out += padded[window] @ kernel[i, j]
        kernel_grad[i, j] = np.einsum("bhwi,bhwo->io", padded[window], grad)
        padded_grad[window] += grad @ kernel[i, j].T
    (top, _), (left, _) = padding
    return out, padded_grad[:, top:, left:][:, : images.shape[1], : images.shape[2]], kernel_grad


def compare(size, features, taps, padding, batch=2, seed=0, tolerance=1e-6):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(batch, *size, features[0])).astype(np.float32)
    kernel = rng.normal(size=(*taps, *features)).astype(np.float32)
    out_size = [s + sum(p) - k + 1 for s, p, k in zip(size, padding, taps)]
    grad = rng.normal(size=(batch, *out_size, features[1])).astype(np.float32)

    @jax.jit
    def ours(images, kernel, grad):
        def conv(images, kernel):
            return conv_general_dilated(images, kernel, (1, 1), padding, dimension_numbers=NHWC)

        out, pullback = jax.vjp(conv, images, kernel)
        return out, *pullback(grad)

    for one, other in zip(ours(images, kernel, grad), reference(images, kernel, grad, padding)):
        error = np.abs(one - other)
        assert np.linalg.norm(error) <= tolerance * np.linalg.norm(other)
        assert error.max() <= 3 * tolerance * np.abs(other).max()


@pytest.mark.parametrize("seed", range(8))
def test_winograd_equals_the_sum_of_taps(seed):
    rng = np.random.default_rng(seed)
    features = tuple(int(f) for f in rng.integers(16, 48, 2))
    padding = tuple(tuple(int(p) for p in rng.integers(0, 3, 2)) for _ in range(2))
    size = (int(rng.integers(5, 12)), int(rng.choice([7, 8, 11, 12, 15, 16])))
    while not winograd.pays((2, *size, features[0]), (3, 3, *features), padding, jnp.float32):
        padding = (padding[0], (1, 1))
        size = (size[0], size[1] // 4 * 4)
    compare(size, features, (3, 3), padding, seed=seed)


def test_winograd_of_many_channels():
    """The sum over channels rounds too: lax' own error grows from 2e-7 to 4e-7."""
    compare((4, 4), (256, 256), (3, 3), ((1, 1), (1, 1)), batch=4, tolerance=1.2e-6)


@pytest.mark.parametrize(
    ("size", "features", "taps", "padding"),
    [
        ((32, 32), (3, 32), (3, 3), ((1, 1), (1, 1))),
        ((11, 13), (1, 5), (5, 5), ((0, 0), (0, 0))),
        ((9, 14), (4, 7), (3, 2), ((2, 0), (0, 3))),
    ],
)
def test_stem_equals_the_sum_of_taps(size, features, taps, padding):
    assert stem.pays((2, *size, features[0]), (*taps, *features), padding, jnp.float32)
    compare(size, features, taps, padding)


def test_winograd_halves_the_products():
    """Of 3x3 taps for four outputs, 36, it leaves 18; forward and backward alike."""

    def loss(images, kernel):
        out = conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=NHWC)
        return jnp.sum(out**2)

    images, kernel = jnp.ones((2, 8, 8, 16)), jnp.ones((3, 3, 16, 16))
    step = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(images, kernel))
    assert step.count("conv_general_dilated[") == 3 * 6 and "rhs_shape=(3, 3," not in step


@pytest.mark.parametrize(
    ("image_shape", "kernel_shape", "padding"),
    [
        ((2, 8, 8, 8), (3, 3, 8, 32), ((1, 1), (1, 1))),  # few channels
        ((2, 2, 2, 64), (3, 3, 64, 64), ((1, 1), (1, 1))),  # half of each tile for nothing
        ((2, 8, 8, 64), (1, 1, 64, 64), ((0, 0), (0, 0))),
        ((2, 8, 8, 64), (5, 5, 64, 64), ((2, 2), (2, 2))),
        ((2, 8, 8, 64), (3, 3, 64, 64), ((3, 3), (3, 3))),  # the gradient's padding is negative
    ],
)
def test_winograd_leaves_what_it_is_not_for(image_shape, kernel_shape, padding):
    assert not winograd.pays(image_shape, kernel_shape, padding, jnp.float32)
    compare(image_shape[1:3], kernel_shape[2:], kernel_shape[:2], padding)


def test_other_dtypes_are_left_to_the_library():
    shapes = (2, 8, 8, 64), (3, 3, 64, 64), ((1, 1), (1, 1))
    assert winograd.pays(*shapes, jnp.float32)
    assert not winograd.pays(*shapes, jnp.bfloat16) and not winograd.pays(*shapes, jnp.float64)


def test_dense_layers_gradients():
    rng = np.random.default_rng(0)
    inputs, kernel, grad = (
        rng.normal(size=shape).astype(np.float32) for shape in ((4, 48), (48, 20), (4, 20))
    )
    contract = (((1,), (0,)), ((), ()))
    out, pullback = jax.vjp(lambda *args: dot_general(*args, contract), inputs, kernel)
    expected = inputs @ kernel, grad @ kernel.T, inputs.T @ grad
    for ours, theirs in zip((out, *pullback(grad)), expected):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_no_product_of_a_dense_layer_is_contracted_over_the_kernels_columns():
    def loss(inputs, kernel):
        return jnp.sum(dot_general(inputs, kernel, (((1,), (0,)), ((), ()))) ** 2)

    program = jax.jit(jax.grad(loss, (0, 1))).lower(jnp.ones((8, 64)), jnp.ones((64, 32)))
    products = [line for line in program.compile().as_text().splitlines() if " dot(" in line]
    assert products and not any("rhs_contracting_dims={1}" in line for line in products)


@pytest.mark.parametrize("shape", [(3, 5, 8), (5, 8)])
def test_other_products_are_those_of_lax(shape):
    lhs, rhs = np.ones(shape, np.float32), np.ones((4, 8), np.float32)
    contract = (((len(shape) - 1,), (1,)), ((), ()))
    np.testing.assert_array_equal(
        dot_general(lhs, rhs, contract), lax.dot_general(lhs, rhs, contract)
    )
