import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cifar_jax import models
from cifar_jax.errors import UserError
from cifar_jax.models.rngs import make_rngs
from cifar_jax.models.stochastic_depth import StochasticDepth, linear_rates


@pytest.mark.parametrize("shape", [(4000, 2, 3, 5), (4000, 7, 5)])
def test_whole_branches_are_dropped_and_the_mean_is_kept(shape):
    drop = StochasticDepth(0.3, num_dims=len(shape))
    x = np.random.default_rng(0).uniform(1, 2, shape).astype(np.float32)
    out = drop(jnp.asarray(x), rngs=nnx.Rngs(dropout=0))
    factors = (np.asarray(out) / x).reshape(shape[0], -1)
    kept = factors[:, 0] > 0
    # One draw per image for all of its values.
    expected = np.where(kept, np.float32(1 / 0.7), 0)[:, None]
    np.testing.assert_allclose(factors, np.broadcast_to(expected, factors.shape), rtol=1e-6)
    assert kept.mean() == pytest.approx(0.7, abs=0.02)  # a deviation of 0.007
    assert factors.mean() == pytest.approx(1, abs=0.03)


def test_evaluation_keeps_every_branch():
    x = jnp.ones((8, 2, 2, 3))
    drop = nnx.view(StochasticDepth(0.9), deterministic=True)
    np.testing.assert_array_equal(drop(x), x)


def test_invalid_rates_are_rejected():
    with pytest.raises(UserError, match=r"rate must be in \[0, 1\), got 1"):
        StochasticDepth(1)


def test_rates_grow_linearly():
    np.testing.assert_allclose(linear_rates(0.3, 4), [0, 0.1, 0.2, 0.3])
    np.testing.assert_allclose(linear_rates(0.3, 18), np.linspace(0, 0.3, 18))
    assert linear_rates(0.3, 1) == (0.0,)


@pytest.mark.parametrize(
    ("name", "options", "num_blocks"),
    [("convnext_t", {"depths": (1, 2, 1)}, 4), ("cct_7_3x1", {"depth": 3}, 3)],
)
def test_networks_drop_later_blocks_more_often(name, options, num_blocks):
    model = nnx.eval_shape(
        lambda: models.create(name, 10, make_rngs(params=0), width=8, drop_path=0.6, **options)
    )
    rates = [block.drop_path.rate for block in model.blocks]
    np.testing.assert_allclose(rates, np.linspace(0, 0.6, num_blocks))
