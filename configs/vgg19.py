"""VGG-19 on CIFAR-100 from random weights.

    python -m cifar_jax.main --config configs/vgg19.py

Adam at 1e-4: with larger learning rates, such a deep network without BatchNorm may fail to start
learning. The recipe has not been run in full yet.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "vgg19"
    config.batch_size = 64
    config.num_epochs = 20
    config.optim.learning_rate = 1e-4
    config.augment.ops = "flip|crop(4)"
    return config
