"""A linear head on the features of ResNet-50 from ImageNet weights, at 64 pixels, for a CPU.

    python -m cifar_jax.main --config configs/transfer/resnet50_small.py

The recipe of configs/transfer/vgg16_small.py, with 2,048 features per image. It has not been run in
full yet.
"""

from configs.transfer import vgg16_small


def get_config():
    config = vgg16_small.get_config()
    del config.model.layers
    config.model.name = "resnet50"
    return config
