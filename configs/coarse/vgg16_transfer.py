"""coarse/vgg16_transfer: published 15.5% on the 100 classes of CIFAR-100.

    python -m cifar_jax.main --config configs/coarse/vgg16_transfer.py

Keras; VGG16 from ImageNet weights, which cannot be loaded here as yet: this run begins from random
weights, and its number is not comparable. The document does not say what stands on the network's
body, what is frozen and for how long it trains; one dense layer, nothing and 20 epochs here. Adam
1e-4 in the place of the document's usual 1e-3, at which so deep a network without BN need not begin
to learn. Reported is the epoch that was best on the test set.
"""

from configs.coarse import cnn2_batch64


def get_config():
    config = cnn2_batch64.get_config()
    config.model.name = "vgg16"
    config.data.label = "fine"
    config.optim.learning_rate = 1e-4
    return config
