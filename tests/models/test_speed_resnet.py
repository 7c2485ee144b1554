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
THIN = {"widths": (26, 6, 8), "mid_widths": (4, 6, 10)}


def build(**options):
    return models.create("speed_resnet", 10, make_rngs(params=0), **THIN | options)


def params_of(network):
    return nnx.to_pure_dict(nnx.state(network, nnx.Param))


def test_initialization():
    params = jax.jit(lambda: params_of(build()))()
    assert not np.any(params["conv_stem"]["bias"])
    blocks = params["blocks"]
    np.testing.assert_array_equal(blocks[0]["conv1"]["kernel"][1, 1, :, :24], np.eye(24))
    # The bottom right tap of the 2x2 kernel, and a kernel with more inputs than filters.
    np.testing.assert_array_equal(blocks[2]["conv1"]["kernel"][1, 1, :, :6], np.eye(6))
    np.testing.assert_array_equal(blocks[2]["conv3"]["kernel"][1, 1], np.eye(10, 8))
    assert {k: v["kernel"].shape[0] for k, v in blocks[2].items() if "conv" in k} == {
        "conv1": 2, "conv2": 3, "conv3": 3,
    }  # fmt: skip


def test_whiten_replaces_the_frozen_kernel():
    network = nnx.eval_shape(build)
    images = jax.random.normal(jax.random.key(0), (8, 32, 32, 3)) + 0.3
    new = flatten_dict(jax.jit(network.whiten)(images))
    (path,) = network.frozen_paths()
    assert set(new) == {path}
    assert new[path].shape == flatten_dict(params_of(network))[path].shape
    expected = whitening_kernel(images, eps=EPS, centered=True)
    np.testing.assert_allclose(new[path], expected, rtol=1e-4, atol=1e-5)


def test_one_network_takes_several_sizes_in_bfloat16():
    def new():
        return build(dtype=jnp.bfloat16)

    graphdef, state = nnx.graphdef(nnx.eval_shape(new)), jax.jit(lambda: nnx.state(new()))()
    apply = jax.jit(lambda state, images: nnx.merge(graphdef, state, copy=True)(images))
    for size in (20, 24, 32):
        images = jax.random.normal(jax.random.key(0), (4, size, size, 3), jnp.bfloat16)
        logits = apply(state, images)
        assert logits.shape == (4, 10) and logits.dtype == jnp.float32
        assert np.all(np.isfinite(logits)) and np.ptp(logits) > 0


def test_small_images_are_rejected():
    with pytest.raises(UserError, match="at least 9 pixels, got 8"):
        nnx.eval_shape(lambda: build()(jnp.zeros((1, 8, 8, 3))))
