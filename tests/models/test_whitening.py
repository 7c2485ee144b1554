from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import nnx
from ml_collections import ConfigDict
from numpy.lib.stride_tricks import sliding_window_view

from cifar_jax import engine, experiment
from cifar_jax.models import whitening
from cifar_jax.models.whitening import whitening_conv, whitening_kernel
from cifar_jax.trained import restore

EPS = 1e-3


@pytest.fixture(scope="module")
def images():
    """Returns correlated images with a nonzero mean."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0.2, 1, (40, 14, 13, 3)) @ (np.eye(3) + rng.uniform(0, 0.4, (3, 3)))
    smooth = noise[:, 1:, 1:] + 0.6 * noise[:, :-1, 1:] + 0.4 * noise[:, 1:, :-1]
    return np.float32(smooth / smooth.std())


def patches_of(images):
    """Returns all patches [P, 12], ordered by row, column and channel, in float64."""
    windows = sliding_window_view(np.float64(images), (2, 2), axis=(1, 2))
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 12)


def moment_of(images, centered):
    patches = patches_of(images)
    if centered:
        return np.cov(patches.T, bias=True)
    return patches.T @ patches / len(patches)


def filters_of(kernel):
    """Returns the filters without their negatives, [12, 12]: one column per filter, in float64."""
    filters = np.asarray(kernel).reshape(12, 24)
    np.testing.assert_array_equal(filters[:, 12:], -filters[:, :12])
    return np.float64(filters[:, :12])


@pytest.mark.parametrize("centered", (False, True))
def test_kernel_equals_numpy(images, centered):
    kernel = jax.jit(partial(whitening_kernel, eps=EPS, centered=centered))(images)
    assert kernel.shape == (2, 2, 3, 24) and kernel.dtype == jnp.float32
    ours = filters_of(kernel)

    moment = moment_of(images, centered)
    # Independent of order and signs: the sum of the filters' outer products is an inverse.
    inverse = np.linalg.inv(moment + EPS * np.eye(12))
    np.testing.assert_allclose(ours @ ours.T, inverse, atol=1e-4 * np.abs(inverse).max())

    values, vectors = np.linalg.eigh(moment)
    expected = (vectors / np.sqrt(values + EPS))[:, ::-1]
    expected = expected * np.sign(expected[0])
    np.testing.assert_allclose(ours, expected, atol=1e-4 * np.abs(expected).max())


def test_outputs_are_whitened(images):
    conv = whitening_conv(
        bias_init=nnx.initializers.zeros, dtype=jnp.float32, rngs=nnx.Rngs(params=0)
    )
    conv.kernel[...] = whitening_kernel(images, eps=1e-9)
    outputs = np.float64(conv(images)).reshape(-1, 24)
    np.testing.assert_allclose(outputs.T @ outputs / len(outputs), [
        [(i == j) - (abs(i - j) == 12) for i in range(24)] for j in range(24)
    ], atol=1e-3)  # fmt: skip


@pytest.mark.parametrize("num_images", (40, 37, 3))
def test_images_are_used_in_several_steps(images, num_images, monkeypatch):
    expected = whitening_kernel(images[:num_images], eps=EPS)
    monkeypatch.setattr(whitening, "_IMAGES_PER_STEP", 8)
    kernel = whitening_kernel(images[:num_images], eps=EPS)
    np.testing.assert_allclose(kernel, expected, atol=1e-4 * np.abs(expected).max())


def test_patches_of_all_images_are_not_in_memory_together():
    images = jax.ShapeDtypeStruct((2000, 32, 32, 3), jnp.float32)
    compiled = jax.jit(partial(whitening_kernel, eps=EPS)).lower(images).compile()
    all_patches = 2000 * 31 * 31 * 12 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < 0.6 * all_patches


def test_covariance_survives_a_large_mean(images):
    kernel = whitening_kernel(images, eps=EPS, centered=True)
    shifted = whitening_kernel(images + 100, eps=EPS, centered=True)
    np.testing.assert_allclose(shifted, kernel, atol=1e-2 * np.abs(kernel).max())


@pytest.mark.parametrize("centered", (False, True))
@pytest.mark.parametrize("color", ((0, 0, 0), (1, 1, 1), (201, 117, 33)))
def test_images_without_contrast_give_finite_filters(color, centered):
    images = jnp.broadcast_to(jnp.float32(color), (2, 4, 4, 3))
    kernel = whitening_kernel(images, eps=EPS, centered=centered)
    assert np.abs(kernel).max() <= EPS**-0.5 * 1.001


def test_the_stem_trains_its_bias_only():
    conv = whitening_conv(
        bias_init=nnx.initializers.zeros, dtype=jnp.bfloat16, rngs=nnx.Rngs(params=0)
    )
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    assert conv(images).shape == (2, 7, 7, 24) and conv(images).dtype == jnp.bfloat16
    gradient = nnx.grad(lambda conv: jnp.sum(jnp.sin(conv(images))))(conv)
    assert not np.any(gradient["kernel"][...]) and np.all(gradient["bias"][...] != 0)


def make_config(**overrides):
    """Returns the config of a small run with weight decay, which needs no gradient to act."""
    return tiny.make_config(
        model=ConfigDict({"name": "airbench", "widths": (4, 6, 8)}),
        optim__name="sgd",
        optim__learning_rate=0.01,
        optim__weight_decay=0.1,
        **overrides,
    )


def assert_whitens_the_tiny_images(kernel):
    dataset = tiny.dataset()
    images = (dataset.train.images / 255 - dataset.info.mean) / dataset.info.std
    inverse = np.linalg.inv(moment_of(images, False) + whitening.EPS * np.eye(12))
    filters = filters_of(kernel)
    np.testing.assert_allclose(filters @ filters.T, inverse, atol=1e-3 * np.abs(inverse).max())


@pytest.mark.usefixtures("library_convolutions")
def test_replicas_start_with_the_whitening_kernel_and_keep_it():
    mesh = engine.make_mesh(jax.devices()[:2])
    config = experiment.checked(make_config(parallel="pmap", lookahead__every=2))
    program = experiment.create(config, tiny.dataset(), mesh=mesh).engine
    state = program.init()
    start = jax.device_get(program.snapshot(state))
    assert_whitens_the_tiny_images(start.params["conv_stem"]["kernel"])
    state, _ = tiny.run_steps(program, state, 3)
    end = jax.device_get(program.snapshot(state))
    for params in (end.params, start.average["params"], end.average["params"]):
        np.testing.assert_array_equal(
            params["conv_stem"]["kernel"], start.params["conv_stem"]["kernel"]
        )
    assert np.all(end.params["conv_stem"]["bias"] != start.params["conv_stem"]["bias"])


@pytest.mark.usefixtures("library_convolutions", "default_signals", "compiled_once")
def test_a_resumed_run_keeps_the_whitening_kernel_and_trains_the_bias(tmp_path):
    import orbax.checkpoint as ocp

    stems = []
    for num_epochs in (1, 2):
        tiny.train(make_config(num_epochs=num_epochs, ema__decay=0.9), tmp_path)
        path = tmp_path / "checkpoints" / str(4 * num_epochs) / "state"
        state = ocp.StandardCheckpointer().restore(path.resolve())["state"]
        stems += [x["conv_stem"] for x in (state["params"], state["average"]["params"])]
    assert_whitens_the_tiny_images(stems[0]["kernel"])
    for stem in stems[1:]:
        np.testing.assert_array_equal(stem["kernel"], stems[0]["kernel"])
    assert np.all(stems[2]["bias"] != stems[0]["bias"])  # after one epoch and after two


@pytest.mark.usefixtures("library_convolutions", "default_signals", "compiled_once")
def test_loaded_weights_keep_the_kernel_of_the_images_that_they_were_trained_on(tmp_path, request):
    tiny.train(make_config(num_epochs=1, ema__decay=0.9), tmp_path)
    request.getfixturevalue("untrained")
    dataset = tiny.dataset()
    darker = dataset._replace(train=dataset.train._replace(images=dataset.train.images // 2))
    config = experiment.checked(make_config(transfer__weights=str(tmp_path)))
    mesh = engine.make_mesh(jax.devices()[:1])
    state = experiment.create(config, darker, mesh=mesh).engine.init()
    loaded = restore.from_workdir(tmp_path).state.average["params"]
    jax.tree.map(np.testing.assert_array_equal, state.params, loaded)
    with pytest.raises(AssertionError):  # the kernel of the darker images differs
        config = experiment.checked(make_config())
        state = experiment.create(config, darker, mesh=mesh).engine.init()
        assert_whitens_the_tiny_images(state.params["conv_stem"]["kernel"])
