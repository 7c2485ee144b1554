"""coarse/cnn4: published 55.2% on the 20 superclasses of CIFAR-100.

    python -m cifar_jax.main --config configs/coarse/cnn4.py

Keras; Adam 1e-3, batch 64, 100 epochs on all 50,000 images, the dropout of coarse/cnn2_dropout.
The epoch that is best on the test set is reported.
"""

from configs.coarse import cnn2_dropout


def get_config():
    config = cnn2_dropout.get_config()
    config.model.name = "cnn4"
    return config
