"""callbacks/resnet50: the 100 classes of CIFAR-100; the document shows figures, no numbers.

    python -m cifar_jax.main --config configs/callbacks/resnet50.py

keras.applications.ResNet50 from random initialisation, SGD 1e-3 with momentum 0.9, batch 128, 80
epochs on 40,000 images, 10,000 for validation. The document's own figure ends at about 74% on
validation and begins as a network with frozen weights does: like the notebook of the author's team
(coreymunk/Deep-Learning-CIFAR-100) it starts from ImageNet weights on images enlarged to 224
pixels, all but BN frozen, under dropout 0.25, dense 256 and BN. Not comparable until those weights
can be loaded. Missing here as yet: rotation 10 degrees, zoom and shear 0.1, the callback that cuts
the rate (patience 3, factor 0.6).
"""

from configs import base


def get_config():
    config = base.get_config()
    config.model.name = "resnet50"
    config.data.val_fraction = 0.2
    config.batch_size = 128
    config.num_epochs = 80
    config.optim.name = "sgd"
    config.optim.learning_rate = 1e-3
    config.optim.momentum = 0.9
    config.augment.ops = "shift(0.1, 0.1)|flip"
    config.augment.normalize = "unit"
    return config
