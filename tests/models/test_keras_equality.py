"""Compares the networks that follow Keras with their Keras versions: logits, sizes and constants.

Keras runs on the PyTorch backend, so that one side is independent of XLA and is not compiled.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
keras = pytest.importorskip("lazy_keras").keras
pytestmark = pytest.mark.usefixtures("one_torch_thread")

from cifar_jax import models  # noqa: E402

IMAGES = np.random.default_rng(1).normal(size=(2, 32, 32, 3)).astype(np.float32)


def abstract(name, num_classes=100, **options):
    """Returns a network with abstract arrays."""
    return nnx.eval_shape(lambda: models.create(name, num_classes, nnx.Rngs(params=0), **options))


def with_weights(layers):
    return [layer for layer in layers if layer.weights]


def transplant(pairs):
    """Sets random weights and statistics in the layers of both networks.

    Args:
      pairs: Pairs of (our layer, Keras layer) that have weights.
    """
    rng = np.random.default_rng(0)
    for ours, theirs in pairs:
        if isinstance(ours, nnx.BatchNorm):
            assert isinstance(theirs, keras.layers.BatchNormalization)
            assert (ours.epsilon, ours.momentum) == (theirs.epsilon, theirs.momentum)
            shape = theirs.gamma.shape
            variance = 10 ** rng.uniform(-4, 0, shape)  # small, so that eps matters
            scale = rng.uniform(0.5, 1.5, shape) * np.sqrt(variance)
            arrays = [scale, *rng.normal(0, 0.3, (2, *shape)), variance]
            targets = [ours.scale, ours.bias, ours.mean, ours.var]
        elif isinstance(theirs, keras.layers.SeparableConv2D):
            depthwise, pointwise = (kernel.shape for kernel in theirs.weights)
            arrays = [rng.normal(0, 1 / 3, depthwise)]
            arrays.append(rng.normal(0, pointwise[2] ** -0.5, pointwise))
            targets = [ours.depthwise.kernel, ours.pointwise.kernel]
        else:
            shape = theirs.kernel.shape
            kernel = rng.normal(0, np.prod(shape[:-1]) ** -0.5, shape)
            arrays = [kernel, rng.normal(0, 0.3, shape[-1:])][: len(theirs.weights)]
            targets = [ours.kernel, ours.bias][: len(theirs.weights)]
        arrays = [array.astype(np.float32) for array in arrays]
        theirs.set_weights(arrays)
        if isinstance(theirs, keras.layers.SeparableConv2D):
            arrays[0] = arrays[0].transpose(0, 1, 3, 2)
        for target, array in zip(targets, arrays, strict=True):
            assert target.shape == array.shape
            target.set_value(jnp.asarray(array))


def count(model):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, (nnx.Param, nnx.BatchStat))))


def assert_same_logits(ours, theirs, images=IMAGES):
    with torch.no_grad():
        expected = keras.ops.convert_to_numpy(theirs(images, training=False))
    evaluating = nnx.view(
        ours, deterministic=True, use_running_average=True, raise_if_not_found=False
    )
    graphdef, state = nnx.split(evaluating)
    forward = jax.jit(
        lambda state, images: nnx.merge(graphdef, state)(images),
        compiler_options={"xla_backend_optimization_level": 0},  # compiles in half the time
    )
    assert_close(forward(state, images), expected)


def assert_close(ours, theirs):
    difference = np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max()
    print(f"{difference:.1e}")  # shown by pytest -s
    assert difference <= 1e-5


@pytest.mark.slow
def test_resnet50_equals_keras_applications():
    theirs = keras.applications.ResNet50(
        weights=None, input_shape=(32, 32, 3), classes=100, classifier_activation=None
    )
    ours = abstract("resnet50")
    assert count(ours) == theirs.count_params() == 23_792_612
    pairs = [(ours.conv_stem, "conv1_conv"), (ours.bn_stem, "conv1_bn")]
    blocks = [(stage, i) for stage, n in enumerate((3, 4, 6, 3), 2) for i in range(1, n + 1)]
    for block, (stage, i) in zip(ours.blocks, blocks, strict=True):
        for j in range(0 if i == 1 else 1, 4):
            for kind in ("conv", "bn"):
                pairs.append((getattr(block, f"{kind}{j}"), f"conv{stage}_block{i}_{j}_{kind}"))
    pairs.append((ours.dense, "predictions"))
    assert len(pairs) == len(with_weights(theirs.layers))
    transplant([(layer, theirs.get_layer(name)) for layer, name in pairs])
    assert_same_logits(ours, theirs)


@pytest.mark.parametrize(("name", "size"), [("vgg16", 14_714_688), ("vgg19", 20_024_384)])
def test_vgg_equals_keras_applications_with_a_dense_layer(name, size):
    make_body = getattr(keras.applications, name.upper())
    body = make_body(include_top=False, weights=None, input_shape=(32, 32, 3))
    assert body.count_params() == size
    dense = keras.layers.Dense(100)
    theirs = keras.Sequential([body, keras.layers.Flatten(), dense])
    ours = abstract(name)
    assert count(ours) == theirs.count_params()
    convs = [layer for layer in ours.layers if isinstance(layer, nnx.Conv)]
    transplant(zip([*convs, ours.dense], [*with_weights(body.layers), dense], strict=True))
    assert_same_logits(ours, theirs)


@pytest.mark.slow
def test_xception_equals_keras_applications():
    theirs = keras.applications.Xception(
        weights=None, input_shape=(71, 71, 3), classes=100, classifier_activation=None
    )
    ours = abstract("xception")
    assert count(ours) == theirs.count_params() == 20_861_480 + 2048 * 100 + 100
    named = [(ours.conv1, "block1_conv1"), (ours.bn1, "block1_conv1_bn")]
    named += [(ours.conv2, "block1_conv2"), (ours.bn2, "block1_conv2_bn")]
    for i, block in enumerate(ours.blocks, 2):
        for j, (conv, norm) in enumerate(zip(block.convs, block.norms, strict=True), 1):
            named += [(conv, f"block{i}_sepconv{j}"), (norm, f"block{i}_sepconv{j}_bn")]
    named.append((ours.dense, "predictions"))
    pairs = [(layer, theirs.get_layer(name)) for layer, name in named]
    # The layers of the shortcuts have no names of their own.
    unnamed = [x for x in theirs.layers if not x.name.startswith(("block", "predictions"))]
    projections = [block for block in ours.blocks if block.shortcut == "projection"]
    for attribute, kind in (
        ("conv_shortcut", keras.layers.Conv2D),
        ("bn_shortcut", keras.layers.BatchNormalization),
    ):
        ours_layers = [getattr(block, attribute) for block in projections]
        theirs_layers = [layer for layer in unnamed if isinstance(layer, kind)]
        pairs += zip(ours_layers, theirs_layers, strict=True)
    assert len(pairs) == len(with_weights(theirs.layers))
    transplant(pairs)
    images = np.random.default_rng(1).normal(size=(2, 71, 71, 3)).astype(np.float32)
    assert_same_logits(ours, theirs, images)


def test_cnn3_equals_the_code_of_the_write_up():
    layers = keras.layers
    theirs = keras.Sequential([keras.Input((32, 32, 3))])
    for filters, dropout in ((32, None), (64, 0.1), (128, 0.25)):
        theirs.add(layers.Conv2D(filters, (3, 3), padding="same"))
        theirs.add(layers.Activation("relu"))
        theirs.add(layers.MaxPooling2D(pool_size=(2, 2)))
        if filters < 128:
            theirs.add(layers.Activation("relu"))
        if dropout:
            theirs.add(layers.Dropout(dropout))
    theirs.add(layers.Flatten())
    theirs.add(layers.Dense(512))
    theirs.add(layers.Activation("relu"))
    theirs.add(layers.Dropout(0.5))
    theirs.add(layers.Dense(100))
    ours = abstract("cnn3")
    assert count(ours) == theirs.count_params() == 1_193_636
    ours_layers = (ours.conv1, ours.conv2, ours.conv3, ours.dense1, ours.dense2)
    transplant(zip(ours_layers, with_weights(theirs.layers), strict=True))
    assert_same_logits(ours, theirs)


def make_school(width):
    """Returns `school` in Keras, with the numbers of filters divided by `width`."""
    layers = keras.layers
    theirs = keras.Sequential([keras.Input((32, 32, 3))])
    for filters in (128, 256, 512):
        for i in range(2):
            theirs.add(layers.Conv2D(filters // width, (3, 3), activation="relu"))
            if filters > 128 or i > 0:
                theirs.add(layers.BatchNormalization())
        if filters < 512:
            theirs.add(layers.MaxPooling2D((2, 2)))
        theirs.add(layers.Dropout(0.3))
    theirs.add(layers.Flatten())
    theirs.add(layers.Dense(512 // width, activation="relu"))
    theirs.add(layers.Dropout(0.3))
    theirs.add(layers.BatchNormalization())
    theirs.add(layers.Dense(100))
    return theirs


def test_school_equals_keras_with_moving_statistics():
    assert make_school(1).count_params() == 4_899_044
    theirs = make_school(16)
    layers = models.options_of("school")["layers"]
    layers = tuple(layer // 16 if isinstance(layer, int) else layer for layer in layers)
    ours = abstract("school", layers=layers, dropout=0.0)
    kinds = (nnx.Conv, nnx.Linear, nnx.BatchNorm)
    ours_layers = [layer for layer in [*ours.layers, ours.dense] if isinstance(layer, kinds)]
    transplant(zip(ours_layers, with_weights(theirs.layers), strict=True))
    assert_same_logits(ours, theirs)


def test_batch_norm_updates_statistics_as_keras_does():
    ours = nnx.eval_shape(lambda: models.create("school", 10, nnx.Rngs(params=0))).layers[2]
    theirs = keras.layers.BatchNormalization()
    theirs.build((None, 5, 5, 128))
    transplant([(ours, theirs)])
    x = np.random.default_rng(2).normal(size=(4, 5, 5, 128)).astype(np.float32)
    with torch.no_grad():
        expected = keras.ops.convert_to_numpy(theirs(x, training=True))
    assert_close(ours(x), expected)
    assert_close(ours.mean[...], keras.ops.convert_to_numpy(theirs.moving_mean))
    assert_close(ours.var[...], keras.ops.convert_to_numpy(theirs.moving_variance))


def test_initialization_equals_keras():
    ours = models.create("vgg16", 512, nnx.Rngs(params=0), layers=(32, 64, "B", *"MMMM", "F"))
    conv, norm, dense = (
        keras.layers.Conv2D(64, (3, 3)),
        keras.layers.BatchNormalization(),
        keras.layers.Dense(512),
    )
    for layer, shape in ((conv, (None, 32, 32, 32)), (norm, (None, 64)), (dense, (None, 256))):
        layer.build(shape)
    for layer, other in ((ours.layers[1], conv), (ours.dense, dense)):
        kernel, expected = np.asarray(layer.kernel), other.get_weights()[0]
        assert kernel.shape == expected.shape
        assert np.std(kernel) == pytest.approx(np.std(expected), rel=0.03)
        assert np.abs(kernel).max() == pytest.approx(np.abs(expected).max(), rel=0.01)
        np.testing.assert_array_equal(layer.bias, other.get_weights()[1])
    norm_arrays = (getattr(ours.layers[2], name) for name in ("scale", "bias", "mean", "var"))
    for array, expected in zip(norm_arrays, norm.get_weights(), strict=True):
        np.testing.assert_array_equal(array, expected)
