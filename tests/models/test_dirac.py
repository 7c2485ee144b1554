import jax
import numpy as np
import pytest

from cifar_jax.models.dirac import dirac_init


@pytest.mark.parametrize(
    "shape", [(3, 3, 4, 7), (3, 3, 7, 4), (1, 1, 5, 5), (2, 2, 3, 6), (5, 3, 2, 3)]
)
def test_first_filters_equal_pytorch(shape):
    torch = pytest.importorskip("torch")
    height, width, in_features, features = shape
    count = min(in_features, features)
    expected = torch.nn.init.dirac_(torch.empty(count, in_features, height, width))
    kernel = np.asarray(dirac_init(jax.random.key(0), shape)).transpose(3, 2, 0, 1)
    np.testing.assert_array_equal(kernel[:count], expected)
    assert np.all(kernel[count:] != 0)


def test_other_filters_have_the_default_of_pytorch():
    kernel = np.asarray(dirac_init(jax.random.key(0), (3, 3, 16, 256)))[..., 16:]
    bound = (9 * 16) ** -0.5
    assert 0.99 * bound < np.abs(kernel).max() <= bound
    assert np.std(kernel) == pytest.approx(bound / 3**0.5, rel=0.02)
