"""hybrid/cnn13_augment: the 100 classes of CIFAR-100; "overfitting still exists".

    python -m cifar_jax.main --config configs/hybrid/cnn13_augment.py

As hybrid/cnn13 with augmentation: horizontal flip and shifts of up to a tenth, as in the author's
repository, whose rotation of up to 15 degrees is missing here as yet.
"""

from configs.hybrid import cnn13


def get_config():
    config = cnn13.get_config()
    config.augment.ops = "shift(0.1, 0.1)|flip"
    return config
