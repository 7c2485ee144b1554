"""assignment/dropout_25_40: published 49.17% on the 100 classes of CIFAR-100 (loss 2.08494).

    python -m cifar_jax.main --config configs/assignment/dropout_25_40.py

assignment/no_augment with dropout 0.4 after the dense layer.
"""

from configs.assignment import no_augment


def get_config():
    config = no_augment.get_config()
    config.model.dropout = (0.25, 0.25, 0.4)
    return config
