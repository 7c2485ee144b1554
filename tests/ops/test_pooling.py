import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cifar_jax.models.layers import BatchNorm
from cifar_jax.ops.pooling import global_max_pool, max_pool


@pytest.mark.parametrize(
    ("window", "stride", "padding", "size"),
    [
        (2, None, 0, 8),
        (2, None, 0, 9),
        (3, None, 0, 8),
        (2, 1, 0, 8),
        (3, 1, 1, 8),
        (3, 2, 1, 8),
        (3, 2, 1, 9),
        (3, 2, "SAME", 8),
        (3, 2, "SAME", 9),
    ],
)
def test_max_pool_equals_reduce_window_with_its_gradient(window, stride, padding, size):
    x = jax.random.normal(jax.random.key(0), (2, size, size, 3))

    def ours(x):
        return max_pool(x, window, stride, padding)

    def reference(x):
        return reduce_window(x, window, stride or window, padding)

    def with_gradient(f):
        loss = lambda x: (jnp.sum(jnp.sin(f(x))), f(x))  # noqa: E731
        return jax.jit(jax.grad(loss, has_aux=True))(x)

    (gradient, out), (expected_gradient, expected) = map(with_gradient, (ours, reference))
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_allclose(gradient, expected_gradient, rtol=1e-6)


def reduce_window(x, window, stride, padding=0):
    shape, strides = (1, window, window, 1), (1, stride, stride, 1)
    sides = padding
    if padding != "SAME":
        sides = [(0, 0), (padding, padding), (padding, padding), (0, 0)]
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, shape, strides, sides)


@pytest.mark.parametrize("size", (3, 4))
def test_global_max_pool_equals_max_with_its_gradient(size):
    x = jax.random.normal(jax.random.key(0), (2, size, size + 1, 3))

    def with_gradient(f):
        return f(x), jax.grad(lambda x: jnp.sum(jnp.sin(f(x))))(x)

    ours, theirs = with_gradient(global_max_pool), with_gradient(lambda x: x.max((1, 2)))
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-6)


def test_global_max_pool_gives_a_gradient_to_one_of_several_maxima():
    gradient = jax.grad(lambda x: global_max_pool(x).sum())(jnp.ones((1, 3, 3, 1)))
    assert np.count_nonzero(gradient) == 1 and np.sum(gradient) == 1


def test_max_pool_keeps_its_gradient_between_batch_norms():
    """Under jit, XLA computes the pool's input twice, with different rounding."""
    x = jax.random.normal(jax.random.key(0), (6, 10, 10, 8))

    def loss(x, pool):
        first, second = (BatchNorm(8, rngs=nnx.Rngs(0)) for _ in range(2))
        return jnp.sum(jnp.sin(second(pool(first(x)))))

    pools = (lambda x: max_pool(x, 2), lambda x: reduce_window(x, 2, 2))
    ours, theirs = (jax.jit(jax.grad(lambda x, f=f: loss(x, f)))(x) for f in pools)
    np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_max_pool_propagates_nan():
    x = jnp.zeros((4, 2, 2, 1)).reshape(4, 4).at[jnp.diag_indices(4)].set(jnp.nan)
    assert np.isnan(max_pool(x.reshape(4, 2, 2, 1), 2)).all()


@pytest.mark.parametrize(("window", "stride"), [(2, 2), (2, 1), (3, 1), (3, 2)])
def test_the_first_of_equal_values_receives_the_gradient(window, stride):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2, 7, 8, 3)).astype(np.float32)
    size = [(n - window) // stride + 1 for n in x.shape[1:3]]
    grad, expected = rng.normal(size=(2, *size, 3)), np.zeros(x.shape)
    for b, i, j, c in np.ndindex(grad.shape):
        top, left = stride * i, stride * j
        part = x[b, top : top + window, left : left + window, c]
        row, column = np.unravel_index(part.argmax(), part.shape)  # the first one, row by row
        expected[b, top + row, left + column, c] += grad[b, i, j, c]
    _, pullback = jax.vjp(lambda x: max_pool(x, window, stride), x)
    np.testing.assert_allclose(pullback(jnp.float32(grad))[0], expected, atol=1e-6)


def test_overlapping_windows_propagate_nan():
    x = jnp.zeros((1, 6, 6, 1)).at[0, 2, 3, 0].set(jnp.nan)
    assert np.array_equal(np.isnan(max_pool(x, 3, 1)), np.isnan(reduce_window(x, 3, 1)))
    assert np.count_nonzero(np.isnan(max_pool(x, 3, 1))) == 9
