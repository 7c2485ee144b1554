"""Xception on CIFAR-100 from random weights, at 71 pixels, the smallest images that Keras accepts.

    python -m cifar_jax.main --config configs/xception.py

At 32 pixels, the middle flow would see 2x2 pixels; at 71, it sees 5x5. The settings of the
optimizer and the augmentation are those of configs/resnet34.py. The recipe has not been run in full
yet.
"""

from configs import resnet34


def get_config():
    config = resnet34.get_config()
    del config.model.width
    config.model.name = "xception"
    config.augment.resize = 71
    return config
