"""coarse/vgg16_transfer: published 15.5% on the 100 classes of CIFAR-100.

    python -m cifar_jax.main --config configs/coarse/vgg16_transfer.py

Keras; VGG16 from ImageNet weights. These cannot be loaded yet: this config starts from random
weights, and its result is not comparable. The write-up does not specify the layers after the body,
which layers are frozen or the number of epochs; here the body is followed by one dense layer,
nothing is frozen and training takes 20 epochs. Adam's learning rate is 1e-4 instead of the
write-up's usual 1e-3, at which such a deep network without BN may fail to start learning. The epoch
that is best on the test set is reported.
"""

from configs.coarse import cnn2_batch64


def get_config():
    config = cnn2_batch64.get_config()
    config.model.name = "vgg16"
    config.data.label = "fine"
    config.optim.learning_rate = 1e-4
    return config
