import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from lowering import program

from cifar_jax.ops.conv import conv_general_dilated

NHWC = ("NHWC", "HWIO", "NHWC")
CONVS = (conv_general_dilated, lax.conv_general_dilated)


def random_case(seed):
    rng = np.random.default_rng(seed)
    kernel = tuple(int(k) for k in rng.choice([1, 2, 3, 5], 2))
    strides = tuple(int(s) for s in rng.integers(1, 4, 2))
    dilation = tuple(int(d) for d in rng.integers(1, 3, 2))
    padding = ["SAME", "VALID", [(1, 2), (0, 1)]][seed % 3]
    min_size = 10 if seed % 2 else max((k - 1) * d + 1 for k, d in zip(kernel, dilation))
    size = tuple(int(s) for s in rng.integers(min_size, min_size + 5, 2))
    features = tuple(int(f) for f in rng.integers(1, 5, 2))
    images = rng.normal(size=(2, *size, features[0])).astype(np.float32)
    weights = rng.normal(size=(*kernel, *features)).astype(np.float32)
    return images, weights, strides, padding, dilation


def forward_and_gradients(conv, images, kernel, strides, padding, dilation):
    """Returns the output and, for a fixed output gradient, the gradients of images and kernel."""

    def f(images, kernel):
        return conv(images, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=NHWC)

    @jax.jit
    def all_three(images, kernel):
        out, pullback = jax.vjp(f, images, kernel)
        grad = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
        return out, *pullback(grad.astype(out.dtype))

    return all_three(images, kernel)


@pytest.mark.parametrize("seed", range(24))
def test_equals_lax_forward_and_backward(seed):
    for ours, theirs in zip(*(forward_and_gradients(c, *random_case(seed)) for c in CONVS)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_gradients_in_a_loop_equal_those_outside():
    images, weights, *_ = random_case(0)

    def loss(weights):
        out = conv_general_dilated(images, weights, (1, 1), "SAME", dimension_numbers=NHWC)
        return jnp.sum(out**2)

    def body(weights, _):
        return weights - 1e-4 * jax.grad(loss)(weights), None

    looped, _ = jax.jit(lambda w: lax.scan(body, w, length=3))(weights)
    stepped = weights
    for _ in range(3):
        stepped, _ = body(stepped, None)
    np.testing.assert_allclose(looped, stepped, rtol=1e-5)


def test_all_convolutions_of_a_training_step_have_canonical_dimensions():
    """XLA's CPU compiler runs convolutions in any other order as naive loops."""

    def loss(images, weights):
        out = conv_general_dilated(images, weights, (1, 1), "SAME", dimension_numbers=NHWC)
        return jnp.sum(out**2)

    images, weights, *_ = random_case(0)
    text = program(jax.grad(loss, (0, 1)), images, weights)
    canonical = "dim_numbers = [b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"
    assert text.count("stablehlo.convolution(") == text.count(canonical) == 3


WIDE_PADDINGS = [(2, 2), (2, 3)], [(5, 1), (3, 6)]


@pytest.mark.parametrize(
    ("size", "stride", "padding", "dilation"),
    [
        (size, stride, WIDE_PADDINGS[(size + stride + dilation) % 2], dilation)
        for size, stride, dilation in itertools.product((1, 2, 5), (1, 2, 3), (1, 2))
    ],
)
def test_small_images_and_wide_paddings(size, stride, padding, dilation):
    """Covers every pair of values.

    The reference pads beforehand, because lax's gradient of wide paddings is wrong on CPUs.
    """

    def padded(images, *args, **kwargs):
        return lax.conv_general_dilated(
            jnp.pad(images, [(0, 0), *padding, (0, 0)]), *args, **kwargs
        )

    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, size, size, 4)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 4, 5)).astype(np.float32)
    strides, dilations = (stride,) * 2, (dilation,) * 2
    for ours, theirs in zip(
        forward_and_gradients(conv_general_dilated, images, kernel, strides, padding, dilations),
        forward_and_gradients(padded, images, kernel, strides, "VALID", dilations),
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 6])
def test_under_vmap_and_in_bfloat16(size):
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(2, 3, size, size, 4)), jnp.bfloat16)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 4, 5)), jnp.bfloat16)

    def gradients(conv, images):
        return forward_and_gradients(conv, images, kernel, (1, 1), "SAME", (1, 1))

    together = jax.vmap(lambda x: gradients(conv_general_dilated, x))(images)
    for i, one in enumerate(images):
        for ours, theirs in zip(together, gradients(lax.conv_general_dilated, one)):
            assert ours.dtype == jnp.bfloat16
            np.testing.assert_allclose(np.float32(ours[i]), np.float32(theirs), rtol=0.05, atol=0.1)


@pytest.mark.parametrize(
    ("size", "padding"), [(2, "SAME"), (3, "SAME"), (4, "VALID"), (3, "VALID")]
)
def test_xla_does_not_swap_small_images_and_kernels(size, padding):
    """If XLA swapped images and kernel because the images are smaller, it would use slow code."""

    def loss(images, kernel):
        out = conv_general_dilated(images, kernel, (1, 1), padding, dimension_numbers=NHWC)
        return jnp.sum(out**2)

    def loop(*args):
        def body(_, carry):
            return tuple(x - g for x, g in zip(carry, jax.grad(loss, (0, 1))(*carry)))

        return jax.lax.fori_loop(0, 2, body, args)

    images, kernel = jnp.ones((8, size, size, 16)), jnp.ones((3, 3, 16, 16))
    program = jax.jit(loop).lower(images, kernel).compile().as_text()
    convolutions = [line for line in program.splitlines() if " convolution(" in line]
    assert convolutions
    for line in convolutions:
        assert "dim_labels=b01f_01io->b01f" in line and "reversal" not in line


@pytest.mark.parametrize(
    ("stride", "padding", "dilation"), [(1, "SAME", 1), (2, "SAME", 2), (2, [(0, 1), (2, 1)], 1)]
)
@pytest.mark.parametrize(("groups", "features"), [(2, 6), (4, 4), (4, 8)])
def test_groups(groups, features, stride, padding, dilation):
    """Covers two groups of two channels, and depthwise convolutions with one or two filters."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 9, 10, 4)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 4 // groups, features)).astype(np.float32)
    results = []
    for conv in CONVS:
        grouped = functools.partial(conv, feature_group_count=groups)
        results.append(
            forward_and_gradients(grouped, images, kernel, (stride,) * 2, padding, (dilation,) * 2)
        )
    for ours, theirs in zip(*results):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_depthwise_in_bfloat16_sums_in_float32():
    rng = np.random.default_rng(0)
    images, kernel = (
        jnp.asarray(rng.normal(size=shape), jnp.bfloat16) for shape in ((2, 9, 9, 8), (3, 3, 1, 8))
    )
    conv = functools.partial(
        conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=NHWC,
        feature_group_count=8,
    )  # fmt: skip
    exact = conv(images.astype(jnp.float32), kernel.astype(jnp.float32))
    np.testing.assert_array_equal(conv(images, kernel), exact.astype(jnp.bfloat16))
    # One convolution per channel would take minutes to compile.
    assert "stablehlo.convolution" not in program(conv, images, kernel)


@pytest.mark.parametrize(
    ("size", "taps", "padding", "dilation"),
    [
        ((8, 8), (3, 3), [(2, 2), (2, 2)], (2, 2)),
        ((6, 8), (3, 3), [(3, 0), (0, 4)], (3, 4)),
        ((8, 6), (2, 3), [(0, 0), (2, 4)], (1, 2)),
        ((4, 4), (3, 3), [(4, 4), (4, 4)], (4, 4)),
    ],
)
@pytest.mark.parametrize("features", [(3, 5), (16, 17)])
def test_dilated_kernels_become_kernels_without_dilation(size, taps, padding, dilation, features):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, *size, features[0])).astype(np.float32)
    kernel = rng.normal(size=(*taps, *features)).astype(np.float32)
    case = images, kernel, (1, 1), padding, dilation
    for ours, theirs in zip(*(forward_and_gradients(c, *case) for c in CONVS)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)

    def gradients(conv):
        return lambda *args: forward_and_gradients(conv, *args, (1, 1), padding, dilation)

    ours, theirs = (program(gradients(conv), images, kernel) for conv in CONVS)
    assert is_dilated(theirs) and not is_dilated(ours)


def test_dilated_kernels_keep_their_dilation_if_phases_differ_in_size():
    images, kernel = np.zeros((2, 7, 8, 4), np.float32), np.zeros((3, 3, 4, 4), np.float32)
    case = (1, 1), [(2, 2), (2, 2)], (2, 2)
    assert is_dilated(
        program(lambda *x: CONVS[0](*x, *case[:2], None, case[2], NHWC), images, kernel)
    )


def is_dilated(text):
    """Returns whether a program has a convolution with a dilated kernel."""
    return any(d != "1, 1" for d in re.findall(r"rhs_dilate = \[([^\]]*)\]", text))
