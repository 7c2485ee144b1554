"""coarse/cnn4_fine: published 38.5% on the 100 classes of CIFAR-100.

    python -m cifar_jax.main --config configs/coarse/cnn4_fine.py

coarse/cnn4 on the fine labels. The epoch that is best on the test set is reported.
"""

from configs.coarse import cnn4


def get_config():
    config = cnn4.get_config()
    config.data.label = "fine"
    return config
