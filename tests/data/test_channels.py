import numpy as np

from cifar_jax.data import channels


def test_mean_std_equals_numpy_in_double_precision():
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)
    images[..., 1] //= 3
    mean, std = channels.mean_std(images)
    assert mean.dtype == std.dtype == np.float32 and mean.shape == std.shape == (3,)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), rtol=1e-7)
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), rtol=1e-7)
