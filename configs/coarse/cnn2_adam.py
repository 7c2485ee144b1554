"""coarse/cnn2_adam: published 48.0% on the 20 superclasses of CIFAR-100, at epoch 4.

    python -m cifar_jax.main --config configs/coarse/cnn2_adam.py

Keras; Adam 1e-3, batch 32, 100 epochs on all 50,000 images. The epoch that is best on the test set
is reported. The network overfits after a few epochs, as in the write-up.
"""

from configs.coarse import cnn2_batch64


def get_config():
    config = cnn2_batch64.get_config()
    config.batch_size = 32
    config.num_epochs = 100
    return config
