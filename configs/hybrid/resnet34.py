"""hybrid/resnet34: the 100 classes of CIFAR-100; the document shows figures, no numbers.

    python -m cifar_jax.main --config configs/hybrid/resnet34.py

As hybrid/resnet18, 34 layers deep.
"""

from configs.hybrid import resnet18


def get_config():
    config = resnet18.get_config()
    config.model.name = "resnet34"
    return config
