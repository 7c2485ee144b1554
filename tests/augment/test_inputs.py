import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cifar_jax import augment
from cifar_jax.errors import UserError

MEAN, STD = np.float32([0.5, 0.4, 0.3]), np.float32([0.2, 0.25, 0.3])
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


def preprocess(images, name, **options):
    return augment.preprocess(images, augment.scaling(name, MEAN, STD), **options)


def test_scalings_equal_their_formulas():
    pixels = IMAGES.astype(np.float64)
    expected = {
        "raw": pixels,
        "unit": pixels / 255,
        "symmetric": pixels / 127.5 - 1,
        "standard": (pixels / 255 - MEAN) / STD,
        "caffe": pixels[..., ::-1] - [103.939, 116.779, 123.68],
        "imagenet": (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    }
    assert expected.keys() == set(augment.NORMALIZATIONS)
    for name, values in expected.items():
        np.testing.assert_allclose(preprocess(IMAGES, name), values, rtol=1e-5, atol=1e-4)
    with pytest.raises(UserError, match=r"unknown augment.normalize 'imagnet'; did you mean"):
        augment.scaling("imagnet", MEAN, STD)


@pytest.mark.parametrize("method", augment.RESIZE_METHODS)
@pytest.mark.parametrize("size", [71, 20])
def test_resize_equals_pillow(method, size):
    found = np.asarray(preprocess(IMAGES, "raw", size=size, method=method))
    assert found.shape == (2, size, size, 3) and found.dtype == np.float32
    for image, resized in zip(IMAGES, found, strict=True):
        for channel in range(3):
            values = Image.fromarray(image[..., channel].astype(np.float32))
            expected = values.resize((size, size), Image.Resampling[method.upper()])
            np.testing.assert_allclose(resized[..., channel], expected, atol=1e-2)


def test_the_dtype_is_set_after_resizing():
    exact = preprocess(IMAGES, "imagenet", size=40)
    rounded = preprocess(IMAGES, "imagenet", size=40, dtype=jnp.bfloat16)
    np.testing.assert_array_equal(rounded, exact.astype(jnp.bfloat16))
