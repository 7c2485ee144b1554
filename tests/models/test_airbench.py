import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.traverse_util import flatten_dict

from cifar_jax import models
from cifar_jax.errors import UserError
from cifar_jax.models.rngs import make_rngs
from cifar_jax.models.whitening import EPS, whitening_kernel

pytestmark = pytest.mark.usefixtures("library_convolutions")
THIN = {"widths": (26, 6, 8)}


def build(num_classes=10, **options):
    return models.create("airbench", num_classes, make_rngs(params=0), **options)


def params_of(network):
    return nnx.to_pure_dict(nnx.state(network, nnx.Param))


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({}, 1_971_640),
        (dict(widths=(128, 384, 384)), 4_604_728),
        (dict(widths=(128, 384, 512), depth=3), 9_915_704),
    ],
)
def test_number_of_parameters_of_the_scripts(options, count):
    params = params_of(nnx.eval_shape(lambda: build(**options)))
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == count


def test_initialization():
    network = jax.jit(lambda: params_of(build(100, **THIN)))()
    head = np.asarray(network["dense"]["kernel"])
    assert np.std(head, ddof=1) == pytest.approx(1, abs=1e-5)
    assert 1.6 < np.abs(head).max() < 1.9  # uniform: sqrt(3)
    assert np.any(network["conv_stem"]["bias"])
    block = network["blocks"][0]
    np.testing.assert_array_equal(block["conv1"]["kernel"][1, 1, :, :24], np.eye(24))
    assert set(block["bn1"]) == {"bias"} and not np.any(block["bn1"]["bias"])

    network = jax.jit(lambda: params_of(build(100, init="sgd", **THIN)))()
    head = np.asarray(network["dense"]["kernel"])
    assert 0.9 * 8**-0.5 < np.abs(head).max() <= 8**-0.5
    assert not np.any(network["conv_stem"]["bias"])


def test_whiten_replaces_the_frozen_kernel():
    network = nnx.eval_shape(lambda: build(**THIN))
    images = jax.random.normal(jax.random.key(0), (8, 32, 32, 3)) + 0.3
    new = flatten_dict(jax.jit(network.whiten)(images))
    (path,) = network.frozen_paths()
    assert set(new) == {path}
    assert new[path].shape == flatten_dict(params_of(network))[path].shape
    expected = whitening_kernel(images, eps=EPS, centered=False)
    np.testing.assert_allclose(new[path], expected, rtol=1e-4, atol=1e-5)


def test_logits_are_scaled():
    images = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))

    @jax.jit
    def logits(images):
        return [build(logit_scale=scale, **THIN)(images) for scale in (0.5, 2.0)]

    first, second = logits(images)
    np.testing.assert_allclose(4 * first, second, rtol=1e-5)


def test_logits_are_finite_in_bfloat16():
    images = jax.random.normal(jax.random.key(0), (4, 32, 32, 3), jnp.bfloat16)
    logits = jax.jit(lambda images: build(dtype=jnp.bfloat16, depth=3, **THIN)(images))(images)
    assert logits.dtype == jnp.float32 and np.all(np.isfinite(logits)) and np.ptp(logits) > 0


def test_image_sizes():
    images = jnp.zeros((1, 28, 28, 3))
    assert nnx.eval_shape(lambda: build(**THIN)(images)).shape == (1, 10)  # for 32 pixels
    with pytest.raises(UserError, match="at least 25 pixels, got 24"):
        build(image_size=24, **THIN)
    with pytest.raises(UserError, match="at least 25 pixels, got 20"):
        nnx.eval_shape(lambda: build(**THIN)(images[:, :20, :20]))


def test_unknown_init_is_rejected():
    with pytest.raises(UserError, match="unknown init 'adam'"):
        build(init="adam")
