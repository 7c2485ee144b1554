"""hybrid/inception_resnet: the write-up's own network on CIFAR-100's 100 classes; only figures.

    python -m cifar_jax.main --config configs/hybrid/inception_resnet.py

Parallel convolution, dilated convolution and max-pool in residual blocks, with the recipe of
hybrid/resnet18. cifar_jax/models/inception_resnet.py lists what is from the write-up and what is
not.
"""

from configs.hybrid import cnn13_augment


def get_config():
    config = cnn13_augment.get_config()
    config.model.name = "inception_resnet"
    return config
