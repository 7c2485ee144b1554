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
