import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cifar_jax import models
from cifar_jax.errors import UserError
from cifar_jax.models import shake_drop
from cifar_jax.models.rngs import make_rngs
from cifar_jax.models.shake_drop import ShakeDrop


def test_forward_and_backward_equal_a_function_of_pytorch():
    torch = pytest.importorskip("torch")
    from benchmarks.torch_models.shake_drop import Scale

    rng = np.random.default_rng(0)
    x, weights = rng.normal(size=(2, 7, 3, 3, 4)).astype(np.float32)
    key = jax.random.key(0)
    layer = ShakeDrop(0.5)

    ours, pull_back = jax.vjp(lambda x: layer(x, rngs=make_rngs(dropout=key)), x)
    factors = shake_drop.draw(jax.random.fold_in(key, 0), 7, 0.5)  # as the stream draws its first
    theirs_x = torch.tensor(x, requires_grad=True)
    theirs = Scale.apply(
        theirs_x, *(torch.tensor(f)[:, None, None, None] for f in map(np.array, factors))
    )
    theirs.backward(torch.tensor(weights))
    np.testing.assert_array_equal(ours, theirs.detach())
    np.testing.assert_array_equal(pull_back(jnp.asarray(weights))[0], theirs_x.grad)


def test_factors_have_the_distributions_of_the_paper():
    forward, backward = map(np.asarray, shake_drop.draw(jax.random.key(0), 100_000, 0.3))
    is_shaken = forward != 1
    np.testing.assert_array_equal(is_shaken, backward != 1)
    # Tolerances are four standard errors.
    assert is_shaken.mean() == pytest.approx(0.3, abs=0.006)
    alpha, beta = forward[is_shaken], backward[is_shaken]
    for values, low, high in ((alpha, -1, 1), (beta, 0, 1)):
        assert low <= values.min() < low + 1e-3 and high - 1e-3 < values.max() <= high
        counts, _ = np.histogram(values, 10, (low, high))
        assert counts == pytest.approx(len(values) / 10, rel=0.08)
    assert abs(np.corrcoef(alpha, beta)[0, 1]) < 4 * len(alpha) ** -0.5
    # Evaluation uses the expected factor.
    assert forward.mean() == pytest.approx(0.7, abs=0.008)


def test_evaluation_scales_by_the_expected_factor():
    x = jnp.full((2, 3, 3, 4), 2.0, jnp.bfloat16)
    layer = nnx.view(ShakeDrop(0.25), deterministic=True)
    out = layer(x)
    assert out.dtype == x.dtype
    np.testing.assert_array_equal(out, 1.5 * np.ones_like(x))


def test_one_factor_applies_to_a_whole_image():
    out = ShakeDrop(0.9)(jnp.ones((64, 5, 5, 3), jnp.bfloat16), rngs=make_rngs(dropout=0))
    assert out.dtype == jnp.bfloat16
    flat = np.asarray(out, np.float32).reshape(64, -1)
    assert (flat == flat[:, :1]).all() and len(np.unique(flat[:, 0])) > 40


def test_rate_zero_changes_nothing_and_needs_no_key():
    x = jnp.arange(8.0).reshape(2, 2, 2, 1)
    np.testing.assert_array_equal(ShakeDrop(0.0)(x), x)


def test_a_rate_outside_the_unit_interval_is_refused():
    with pytest.raises(UserError, match=r"must be in \[0, 1\), got 1.5"):
        ShakeDrop(1.5)


def test_the_rate_grows_linearly_with_the_blocks():
    def build():
        return models.create("pyramidnet", 10, make_rngs(params=0), depth=14, shake_drop=0.6)

    rates = [block.shake_drop.rate for block in nnx.eval_shape(build).blocks]
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
