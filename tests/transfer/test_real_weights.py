"""Compares features of real images with keras.applications, with ImageNet's weights.

    python -m pytest -s tests/transfer/test_real_weights.py --source FOLDER --weights FOLDER

The weights are the files without a head that keras.applications downloads, under their names.
"""

import numpy as np
import pytest
from augmenting import photographs
from PIL import Image
from pretrained import Network, relative

torch = pytest.importorskip("torch")
keras = pytest.importorskip("lazy_keras").keras


@pytest.mark.real_images
@pytest.mark.parametrize(
    ("name", "size"), [("vgg16", 224), ("vgg16", 32), ("xception", 150), ("xception", 71)]
)
def test_features_equal_keras_applications(name, size, pytestconfig):
    folder = pytestconfig.getoption("weights")
    if not folder:
        pytest.skip("needs ImageNet's weights: --weights FOLDER")
    path = folder / f"{name}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    module = getattr(keras.applications, name)
    images = [
        Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)
        for image in photographs(8, size=32)
    ]
    inputs = module.preprocess_input(np.float32(np.stack(images)))
    create = module.VGG16 if name == "vgg16" else module.Xception
    theirs = create(
        include_top=False,
        weights=str(path),
        input_shape=(size, size, 3),
        pooling="avg" if name == "xception" else None,
    )
    with torch.no_grad():
        expected = keras.ops.convert_to_numpy(theirs(inputs, training=False)).reshape(8, -1)
    options = dict(image_size=size) if name == "vgg16" else {}
    ours = Network(name, **options)
    features = ours.features(ours.load(path), inputs)
    assert features.shape == expected.shape and expected.std() > 0.01
    assert relative(features, expected) < 1e-4
