import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cifar_jax.errors import UserError
from cifar_jax.models import layers


def keys(count):
    return jax.random.split(jax.random.key(0), count)


def test_dropout_drops_the_rate_and_keeps_the_mean():
    x = jnp.ones((64, 1000))
    out = layers.Dropout(0.25)(x, layers.ExampleRngs(keys(64)))
    assert set(np.unique(out)) == {0.0, np.float32(1 / 0.75)}
    assert np.mean(out == 0) == pytest.approx(0.25, abs=0.01)


def test_dropout_of_an_example_does_not_depend_on_its_batch():
    x = jnp.ones((8, 5, 5, 3))
    whole = layers.Dropout(0.5)(x, layers.ExampleRngs(keys(8)))
    part = layers.Dropout(0.5)(x[4:], layers.ExampleRngs(keys(8)[4:]))
    np.testing.assert_array_equal(whole[4:], part)
    assert not np.array_equal(whole[0], whole[1])


def test_two_dropouts_draw_two_masks():
    rngs = layers.ExampleRngs(keys(4))
    x = jnp.ones((4, 100))
    assert not np.array_equal(layers.Dropout(0.5)(x, rngs), layers.Dropout(0.5)(x, rngs))


def test_dropout_is_the_identity_in_evaluation():
    x = jnp.ones((4, 100))
    out = nnx.view(layers.Dropout(0.5), deterministic=True)(x)
    np.testing.assert_array_equal(out, x)


def test_dropout_without_keys_says_so():
    with pytest.raises(ValueError, match="needs rngs in training"):
        layers.Dropout(0.5)(jnp.ones((1, 1)))


@pytest.mark.parametrize(("window", "size"), [(2, 8), (2, 9), (3, 8)])
def test_max_pool_equals_reduce_window_with_its_gradient(window, size):
    x = jax.random.normal(jax.random.key(0), (2, size, size, 3))

    def reference(x):
        shape = (1, window, window, 1)
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, shape, shape, "VALID")

    np.testing.assert_array_equal(layers.max_pool(x, window), reference(x))
    ours, theirs = (
        jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x))))(x)
        for f in (lambda x: layers.max_pool(x, window), reference)
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_batch_norm_computes_in_float32():
    norm = layers.BatchNorm(4, rngs=nnx.Rngs(0))
    x = 100 + jax.random.normal(jax.random.key(0), (256, 4)).astype(jnp.bfloat16)
    assert norm(x).dtype == jnp.bfloat16
    assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32
    exact = 0.01 * np.asarray(x, np.float64).mean(0)
    np.testing.assert_allclose(norm.mean[...], exact, rtol=1e-5)


def test_initialisers_have_the_variance_of_their_frameworks():
    shape, key = (3, 3, 64, 128), jax.random.key(0)
    fan_in, fan_out = 9 * 64, 9 * 128
    for init, variance in (
        (layers.keras_init, 2 / (fan_in + fan_out)),
        (layers.torch_init, 1 / (3 * fan_in)),
        (layers.he_fan_out_init, 2 / fan_out),
    ):
        assert np.var(init(key, shape, jnp.float32)) == pytest.approx(variance, rel=0.02)
    bias = layers.torch_bias_init(100)(key, (10000,))
    assert np.abs(bias).max() == pytest.approx(0.1, rel=0.01)


def test_per_layer():
    assert layers.per_layer(0.5, 3, "dropout") == (0.5, 0.5, 0.5)
    assert layers.per_layer((0.5,), 3, "dropout") == (0.5, 0.5, 0.5)
    assert layers.per_layer((0.1, 0.2), 2, "dropout") == (0.1, 0.2)
    with pytest.raises(UserError, match="one number or 3"):
        layers.per_layer((0.1, 0.2), 3, "dropout")
