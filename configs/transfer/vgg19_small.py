"""A linear head on the features of VGG19 from ImageNet weights, at 64 pixels, for a CPU.

    python -m cifar_jax.main --config configs/transfer/vgg19_small.py

The recipe of configs/transfer/vgg16_small.py. It has not been run in full yet.
"""

from configs.transfer import vgg16_small, vgg19


def get_config():
    config = vgg16_small.get_config()
    config.model.name = "vgg19"
    config.model.layers = vgg19.get_config().model.layers
    return config
