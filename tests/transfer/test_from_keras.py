"""Compares networks with weights from Keras's files with keras.applications."""

import numpy as np
import pytest
from pretrained import TINY_VGG16, Network, keras_vgg16, random_arrays, relative, write_hdf5

from cifar_jax.models import plain

pytest.importorskip("h5py")
torch = pytest.importorskip("torch")
keras = pytest.importorskip("lazy_keras").keras
pytestmark = pytest.mark.usefixtures("one_torch_thread")


def save(model, path):
    """Sets random weights, and lets Keras write the legacy layout."""
    for layer in model.layers:
        shapes = {weight.name: tuple(weight.shape) for weight in layer.weights}
        layer.set_weights(list(random_arrays(shapes, seed=len(layer.name)).values()))
    model.save(path)


def predict(model, images):
    with torch.no_grad():
        return keras.ops.convert_to_numpy(model(images, training=False))


def random_images(size):
    return np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("VGG16", dict(layers=(*plain.VGG16, 4096, 4096))),
        ("ResNet50", dict()),
    ],
)
def test_logits_equal_keras_with_top(tmp_path, name, options):
    theirs = getattr(keras.applications, name)(
        weights=None, input_shape=(32, 32, 3), classes=7, classifier_activation=None
    )
    save(theirs, tmp_path / "model.h5")
    ours = Network(name.lower(), 7, **options)
    found = ours.load(tmp_path / "model.h5")
    images = random_images(32)
    assert not found.notes
    assert relative(ours.logits(found, images), predict(theirs, images)) < 1e-4
    # With a different number of classes, the head stays random.
    other = Network(name.lower(), 5, **options)
    found = other.load(tmp_path / "model.h5")
    assert "dense" not in found.params
    assert "predictions/kernel" in found.notes[0] and "dense.kernel" in found.notes[0]


@pytest.mark.slow
def test_features_equal_keras_xception(tmp_path):
    # Keras counts unnamed layers over the process.
    keras.layers.Conv2D(1, 1), keras.layers.BatchNormalization()
    theirs = keras.applications.Xception(
        weights=None, include_top=False, pooling="avg", input_shape=(71, 71, 3)
    )
    save(theirs, tmp_path / "model.h5")
    ours = Network("xception")
    found = ours.load(tmp_path / "model.h5")
    images = random_images(71)
    assert relative(ours.features(found, images), predict(theirs, images)) < 1e-4


def test_names_of_old_files_and_empty_layers_do_not_matter(tmp_path):
    network = Network("vgg16", layers=TINY_VGG16)
    arrays = random_arrays(network.shapes())
    write_hdf5(tmp_path / "old.h5", keras_vgg16(arrays))
    found = network.load(tmp_path / "old.h5")
    for path, array in arrays.items():
        layers, index, leaf = path
        np.testing.assert_array_equal(found.params[layers][index][leaf], array)
    assert set(found.params) == {"layers"} and found.batch_stats == {}
    assert found.source == str(tmp_path / "old.h5")
