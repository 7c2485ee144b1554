"""hybrid/cnn_shallow: slightly better than cnn13 in the figure, on 100 classes of CIFAR-100.

    python -m cifar_jax.main --config configs/hybrid/cnn_shallow.py

hybrid/cnn13_l2 with the first three of its five blocks. The write-up only describes it as "a
shallower structure".
"""

from configs.hybrid import cnn13_l2


def get_config():
    config = cnn13_l2.get_config()
    config.model.name = "cnn9"
    config.model.dropout = (0.3, 0.3, 0.3, 0.4)
    return config
