"""cifar10/cnn_small: published 54% on CIFAR-10.

    python -m cifar_jax.main --config configs/cifar10/cnn_small.py

PyTorch; pixels in [-1, 1], no augmentation; the last epoch is reported. The write-up gives no
recipe; batch 16, Adam 5e-3 and 4 epochs are from the version of the author's repository,
TimofeyKruk/ImageClassifierCIFAR10, at the time of the published number.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "cnn_small"
    config.data.name = "cifar10"
    config.batch_size = 16
    config.num_epochs = 4
    config.optim.learning_rate = 5e-3
    config.augment.normalize = "symmetric"
    return config
