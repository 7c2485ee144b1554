"""Xception from ImageNet weights, fine-tuned on CIFAR-100 at 160 pixels, for a GPU.

    python -m cifar_jax.main --config configs/transfer/xception.py

It uses the weights of keras.applications and Keras's preprocessing, which scales pixels to [-1, 1].
The network was trained at 299 pixels; 160 pixels need less than a third of the computation. The
rest is the recipe of configs/transfer/resnet50.py. It has not been run in full yet.
"""

from configs.transfer import resnet50


def get_config():
    config = resnet50.get_config()
    config.model.name = "xception"
    config.augment.resize = 160
    config.augment.normalize = "symmetric"
    return config
