import jax
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict

from cifar_jax import experiment
from cifar_jax.errors import UserError
from cifar_jax.range_test import sweep
from cifar_jax.range_test.sweep import growth


def test_learning_rate_grows_by_a_constant_factor():
    schedule = growth(1e-4, 1e-1, num_epochs=3, by_epoch=False)(10)
    rates = np.array([float(schedule(step)) for step in range(30)])
    np.testing.assert_allclose(rates[[0, -1]], [1e-4, 1e-1], rtol=1e-4)
    np.testing.assert_allclose(rates[1:] / rates[:-1], 1000 ** (1 / 29), rtol=1e-4)
    schedule = growth(1e-4, 1e-1, num_epochs=4, by_epoch=True)(10)
    rates = [float(schedule(step)) for step in (0, 9, 10, 39)]
    np.testing.assert_allclose(rates, [1e-4, 1e-4, 1e-3, 1e-1], rtol=1e-4)


def test_epochs_begin_at_their_first_step_when_compiled():
    """XLA turns a division by a constant into a product, whose floor may be one too low."""
    lengths = np.arange(1, 3201, dtype=np.int32)
    schedule = growth(1e-4, 1e-1, num_epochs=4, by_epoch=True)(lengths)
    steps = np.array([[0], [1], [2], [3]], np.int32) * lengths
    steps = np.concatenate([steps, steps + lengths - 1])
    found = jax.jit(schedule)(steps)
    np.testing.assert_allclose(found, 1e-4 * 10.0 ** (steps // lengths), rtol=1e-4)


def test_all_groups_of_layers_train_from_the_start(monkeypatch):
    seen = []

    def create(config, *args, **kwargs):
        seen.append(config.transfer.unfreeze_epochs)
        raise UserError("enough")

    monkeypatch.setattr(experiment, "create", create)
    config = tiny.make_config(
        model=ConfigDict({"name": "vgg16", "layers": (8, "M", "F")}),
        transfer__unfreeze_epochs=(0, 5),
    )
    with pytest.raises(UserError, match="enough"):
        sweep.run(config, 1e-5, 1.0, 3)
    assert seen == [()]
