import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cifar_jax.models.conv import conv_general_dilated

NHWC = ("NHWC", "HWIO", "NHWC")


def random_case(seed):
    rng = np.random.default_rng(seed)
    kernel = tuple(int(k) for k in rng.choice([1, 2, 3, 5], 2))
    strides = tuple(int(s) for s in rng.integers(1, 4, 2))
    dilation = tuple(int(d) for d in rng.integers(1, 3, 2))
    padding = ["SAME", "VALID", [(1, 2), (0, 1)]][seed % 3]
    size = tuple(int(s) for s in rng.integers(10, 15, 2))
    features = tuple(int(f) for f in rng.integers(1, 5, 2))
    images = rng.normal(size=(2, *size, features[0])).astype(np.float32)
    weights = rng.normal(size=(*kernel, *features)).astype(np.float32)
    return images, weights, strides, padding, dilation


@pytest.mark.parametrize("seed", range(24))
def test_equals_lax_forward_and_backward(seed):
    images, weights, strides, padding, dilation = random_case(seed)

    def both(conv):
        def f(images, weights):
            return conv(
                images, weights, strides, padding, rhs_dilation=dilation, dimension_numbers=NHWC
            )

        out, pullback = jax.vjp(f, images, weights)
        grad = jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)
        return out, *pullback(grad)

    for ours, theirs in zip(both(conv_general_dilated), both(lax.conv_general_dilated)):
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


def test_no_convolution_of_a_backward_pass_is_left_to_the_compilers_naive_loops():
    """All three convolutions take batch, features and space in the order that is fast."""

    def loss(images, weights):
        out = conv_general_dilated(images, weights, (1, 1), "SAME", dimension_numbers=NHWC)
        return jnp.sum(out**2)

    images, weights, *_ = random_case(0)
    jaxpr = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(images, weights))
    canonical = "lhs_spec=(0, 3, 1, 2), rhs_spec=(3, 2, 0, 1), out_spec=(0, 3, 1, 2)"
    assert jaxpr.count("conv_general_dilated[") == jaxpr.count(canonical) == 3


def test_groups_fall_back_to_lax():
    images = np.ones((1, 6, 6, 4), np.float32)
    weights = np.ones((3, 3, 1, 4), np.float32)
    args = (images, weights, (1, 1), "SAME")
    options = dict(dimension_numbers=NHWC, feature_group_count=4)
    np.testing.assert_array_equal(
        conv_general_dilated(*args, **options), lax.conv_general_dilated(*args, **options)
    )
