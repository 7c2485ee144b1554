import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import ndtr

from cifar_jax.errors import UserError
from cifar_jax.models import layers


def test_dropout_drops_the_rate_and_keeps_the_mean():
    x = jnp.ones((64, 1000))
    out = layers.Dropout(0.25)(x, rngs=nnx.Rngs(dropout=0))
    assert set(np.unique(out)) == {0.0, np.float32(1 / 0.75)}
    assert np.mean(out == 0) == pytest.approx(0.25, abs=0.01)


def test_dropout_draws_a_mask_per_example():
    out = layers.Dropout(0.5)(jnp.ones((8, 5, 5, 3)), rngs=nnx.Rngs(dropout=0))
    assert len(np.unique(out, axis=0)) == 8


def test_two_dropouts_draw_different_masks():
    rngs = nnx.Rngs(dropout=0)
    x = jnp.ones((4, 100))
    masks = (layers.Dropout(0.5)(x, rngs=rngs) for _ in range(2))
    assert not np.array_equal(*masks)


def test_dropout_is_the_identity_in_evaluation():
    x = jnp.ones((4, 100))
    out = nnx.view(layers.Dropout(0.5), deterministic=True)(x)
    np.testing.assert_array_equal(out, x)


def test_dropout_without_keys_raises():
    with pytest.raises(ValueError, match="no `rngs` argument was provided to Dropout"):
        layers.Dropout(0.5)(jnp.ones((1, 1)))


def test_batch_norm_computes_in_float32():
    norm = layers.BatchNorm(4, rngs=nnx.Rngs(0))
    x = 100 + jax.random.normal(jax.random.key(0), (256, 4)).astype(jnp.bfloat16)
    assert norm(x).dtype == jnp.bfloat16
    assert norm.mean[...].dtype == norm.var[...].dtype == jnp.float32
    exact = 0.01 * np.asarray(x, np.float64).mean(0)
    np.testing.assert_allclose(norm.mean[...], exact, rtol=1e-5)


@pytest.mark.parametrize("is_training", (True, False))
@pytest.mark.parametrize("options", ({}, dict(use_scale=False, use_bias=False)))
def test_batch_norm_equals_nnx(is_training, options):
    keys = jax.random.split(jax.random.key(0), 6)
    x = 3 + 2 * jax.random.normal(keys[0], (8, 5, 5, 6))
    weights = jax.random.normal(keys[1], x.shape)

    def run(kind):
        norm = kind(6, momentum=0.9, epsilon=1e-3, rngs=nnx.Rngs(0), **options)
        norm.use_running_average = not is_training
        norm.mean[...], norm.var[...] = jax.random.uniform(keys[2], (2, 6), minval=1, maxval=4)
        for param, key in ((norm.scale, keys[3]), (norm.bias, keys[4])):
            if param is not None:
                param[...] = jax.random.normal(key, (6,))
        graph, params, rest = nnx.split(norm, nnx.Param, ...)

        def loss(params, x):
            merged = nnx.merge(graph, params, rest, copy=True)
            out = merged(x)
            return jnp.sum(out * weights), (out, merged.mean[...], merged.var[...])

        (_, outs), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
        return jax.tree.leaves((outs, grads))

    ours, theirs = run(layers.BatchNorm), run(nnx.BatchNorm)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(b).max())


def test_batch_norm_keeps_one_array_for_its_gradient():
    x = jax.random.normal(jax.random.key(0), (4, 6, 6, 8))
    _, pullback = jax.vjp(lambda x: jnp.sin(layers.BatchNorm(8, rngs=nnx.Rngs(0))(x)), x)
    kept = [leaf for leaf in jax.tree.leaves(pullback) if leaf.shape == x.shape]
    assert len(kept) == 2  # x, and the cosine for the gradient of the sine


def test_layer_norm_computes_in_float32():
    norm = layers.LayerNorm(64, rngs=nnx.Rngs(0))
    norm.scale[...] = jax.random.uniform(jax.random.key(1), 64)
    x = 100 + jax.random.normal(jax.random.key(0), (8, 64)).astype(jnp.bfloat16)
    out = norm(x)
    assert out.dtype == jnp.bfloat16
    values = np.asarray(x, np.float64)
    exact = (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)
    exact *= np.asarray(norm.scale[...])
    # Half a unit in the last place of bfloat16; with a scale in bfloat16, up to three halves.
    np.testing.assert_allclose(np.asarray(out, np.float64), exact, rtol=0.0045)


def test_gelu_equals_pytorch():
    torch = pytest.importorskip("torch")
    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    expected = torch.nn.functional.gelu(torch.tensor(x)).numpy()
    np.testing.assert_allclose(layers.gelu(jnp.asarray(x)), expected, atol=1e-6)


def test_gelu_and_its_gradient_in_bfloat16_are_exact_up_to_rounding():
    x = jnp.linspace(-4, 4, 801, dtype=jnp.bfloat16)
    exact = np.asarray(x, np.float64)
    density = np.exp(-(exact**2) / 2) / np.sqrt(2 * np.pi)
    for found, wanted in (
        (layers.gelu(x), exact * ndtr(exact)),
        (jax.grad(lambda x: layers.gelu(x).sum())(x), ndtr(exact) + exact * density),
    ):
        assert found.dtype == jnp.bfloat16
        # Half a unit in the last place of bfloat16.
        np.testing.assert_allclose(np.asarray(found, np.float64), wanted, rtol=0.004, atol=1e-6)


def test_initializers_have_the_variance_of_their_frameworks():
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


def test_torch_layers_are_initialized_as_in_pytorch():
    torch = pytest.importorskip("torch")
    rngs = nnx.Rngs(params=0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pairs = [
            (layers.torch_conv(16, 64, 5, rngs=rngs), torch.nn.Conv2d(16, 64, 5)),
            (layers.torch_linear(400, 2000, rngs=rngs), torch.nn.Linear(400, 2000)),
        ]
    for ours, theirs in pairs:
        bound = 400**-0.5
        for array, other, tolerance in (
            (ours.kernel, theirs.weight, 0.02),
            (ours.bias, theirs.bias, 0.3),
        ):
            array, other = np.asarray(array), other.detach().numpy()
            assert array.size == other.size
            assert 0.9 * bound < np.abs(array).max() <= bound
            assert np.std(array) == pytest.approx(np.std(other), rel=tolerance)
    images = jnp.ones((1, 9, 9, 16))
    assert pairs[0][0](images).shape == (1, 5, 5, 64)  # valid padding


def test_per_layer():
    assert layers.per_layer(0.5, 3, "dropout") == (0.5, 0.5, 0.5)
    assert layers.per_layer((0.5,), 3, "dropout") == (0.5, 0.5, 0.5)
    assert layers.per_layer((0.1, 0.2), 2, "dropout") == (0.1, 0.2)
    with pytest.raises(UserError, match="one number or 3"):
        layers.per_layer((0.1, 0.2), 3, "dropout")
