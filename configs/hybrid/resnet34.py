"""hybrid/resnet34: the 100 classes of CIFAR-100; the write-up shows only figures.

    python -m cifar_jax.main --config configs/hybrid/resnet34.py

hybrid/resnet18 with 34 layers.
"""

from configs.hybrid import resnet18


def get_config():
    config = resnet18.get_config()
    config.model.name = "resnet34"
    return config
