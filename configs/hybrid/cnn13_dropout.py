"""hybrid/cnn13_dropout: the 100 classes of CIFAR-100; the write-up shows only figures.

    python -m cifar_jax.main --config configs/hybrid/cnn13_dropout.py

hybrid/cnn13_augment with dropout at the positions and rates of the author's repository: 0.3 in each
block, 0.4 after the first dense layer. In that repository, dropout has no effect, because the
training loop calls the network in inference mode; here it is active, as the write-up describes.
"""

from configs.hybrid import cnn13_augment


def get_config():
    config = cnn13_augment.get_config()
    config.model.dropout = (0.3, 0.3, 0.3, 0.3, 0.3, 0.4)
    return config
