"""coarse/cnn2_adam: published 48.0% on the 20 superclasses of CIFAR-100, at epoch 4.

    python -m cifar_jax.main --config configs/coarse/cnn2_adam.py

Keras; Adam 1e-3, batch 32, 100 epochs on all 50,000 images; reported is the epoch that was best on
the test set. Overfits after a few epochs, in the document as here.
"""

from configs.coarse import cnn2_batch64


def get_config():
    config = cnn2_batch64.get_config()
    config.batch_size = 32
    config.num_epochs = 100
    return config
