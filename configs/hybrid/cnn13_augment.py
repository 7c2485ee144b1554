"""hybrid/cnn13_augment: the 100 classes of CIFAR-100; "overfitting still exists".

    python -m cifar_jax.main --config configs/hybrid/cnn13_augment.py

hybrid/cnn13 with the augmentation of the author's repository: rotation by up to 15 degrees, shifts
of up to a tenth, horizontal flip.
"""

from configs.hybrid import cnn13


def get_config():
    config = cnn13.get_config()
    config.augment.ops = "affine(rotation=15, width_shift=0.1, height_shift=0.1)|flip"
    return config
