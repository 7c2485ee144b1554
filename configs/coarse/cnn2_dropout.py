"""coarse/cnn2_dropout: published 51.3% on the 20 superclasses of CIFAR-100.

    python -m cifar_jax.main --config configs/coarse/cnn2_dropout.py

coarse/cnn2_batch64 with dropout 0.25 after the pool, 0.25 after flatten and 0.5 after the dense
layer, 100 epochs. The epoch that is best on the test set is reported.
"""

from configs.coarse import cnn2_batch64


def get_config():
    config = cnn2_batch64.get_config()
    config.model.dropout = (0.25, 0.25, 0.5)
    config.num_epochs = 100
    return config
