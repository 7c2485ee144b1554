"""hybrid/cnn13: the 100 classes of CIFAR-100; the write-up shows only figures.

    python -m cifar_jax.main --config configs/hybrid/cnn13.py

Keras; thirteen weight layers, which overfit. The test set replaces the validation split; the last
epoch is reported. Adam 1e-4, batch 128, 200 epochs, the network's BN layers and the standardization
of images are from the author's repository, chentalen2021/CIFAR100_classification. Deviation: images
are standardized per channel here, but over all channels there.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "cnn13"
    config.batch_size = 128
    config.num_epochs = 200
    config.optim.learning_rate = 1e-4
    config.optim.eps = 1e-7
    return config
