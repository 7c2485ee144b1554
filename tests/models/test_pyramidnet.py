import numpy as np
import pytest

from cifar_jax.models.pyramidnet import _average_pool


@pytest.mark.parametrize(("height", "width"), [(6, 4), (5, 7)])
def test_the_pool_of_the_shortcut_equals_that_of_pytorch(height, width):
    torch = pytest.importorskip("torch")
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    theirs = torch.nn.functional.avg_pool2d(
        torch.tensor(x).permute(0, 3, 1, 2), 2, ceil_mode=True
    ).permute(0, 2, 3, 1)
    np.testing.assert_allclose(_average_pool(x), theirs, rtol=1e-5, atol=1e-6)
