import jax
import numpy as np
import pytest
from flax import nnx

from cifar_jax import models
from cifar_jax.models.rngs import make_rngs


@pytest.mark.parametrize("jit", [False, True])
def test_keys_equal_those_of_nnx(jit):
    def draw(make):
        rngs = make(params=jax.random.key(3), dropout=4)
        keys = rngs.params(), rngs.params(), rngs.dropout(), rngs.params(), rngs["dropout"]()
        return jax.random.key_data(jax.numpy.stack(keys))

    results = [(jax.jit(draw, static_argnums=0) if jit else draw)(f) for f in (nnx.Rngs, make_rngs)]
    np.testing.assert_array_equal(*results)
    assert len({tuple(key) for key in results[1].tolist()}) == 5


def test_parameters_equal_those_of_nnx():
    def init(make):
        network = models.create("cnn2", 10, make(params=1), filters=(4, 8), dense_units=8)
        return nnx.to_pure_dict(nnx.state(network, nnx.Param))

    jax.tree.map(np.testing.assert_array_equal, init(nnx.Rngs), init(make_rngs))


def test_no_operation_is_traced_to_count_keys():
    """NNX traces an addition for each key; storing the sums takes time quadratic in the keys."""

    def draw(make):
        rngs = make(params=0)
        return [rngs.params() for _ in range(5)]

    def count_additions(make):
        return str(jax.make_jaxpr(lambda: draw(make))()).count(" add ")

    assert count_additions(nnx.Rngs) == 5 and count_additions(make_rngs) == 0
