"""coarse/cnn2_batch16: the 20 superclasses of CIFAR-100; the write-up shows only a figure.

    python -m cifar_jax.main --config configs/coarse/cnn2_batch16.py

Keras; Adam 1e-3, batch 16, 20 epochs. The epoch that is best on the test set is reported.
"""

from configs.coarse import cnn2_batch64


def get_config():
    config = cnn2_batch64.get_config()
    config.batch_size = 16
    return config
