import jax
import numpy as np

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
