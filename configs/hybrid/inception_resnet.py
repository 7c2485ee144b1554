"""hybrid/inception_resnet: the document's own network on the 100 classes of CIFAR-100; no number.

    python -m cifar_jax.main --config configs/hybrid/inception_resnet.py

Convolution, dilated convolution and max-pool side by side in residual blocks; the recipe of
hybrid/resnet18. cifar_jax/models/inception_resnet.py says what is the document's and what is not.
"""

from configs.hybrid import cnn13_augment


def get_config():
    config = cnn13_augment.get_config()
    config.model.name = "inception_resnet"
    return config
