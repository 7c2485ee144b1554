"""coarse/cnn2_batch64: published 49.6% on the 20 superclasses of CIFAR-100.

    python -m cifar_jax.main --config configs/coarse/cnn2_batch64.py

Keras; Adam 1e-3, batch 64, 20 epochs on all 50,000 images. The write-up reports the epoch that
is best on the test set, and so does this config (selected_on is "test"). It does not say how pixels
are scaled; they are scaled to [0, 1] here, as is usual with Keras.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "cnn2"
    config.data.label = "coarse"
    config.batch_size = 64
    config.num_epochs = 20
    config.selected_on = "test"
    config.optim.learning_rate = 1e-3
    config.optim.eps = 1e-7
    config.augment.normalize = "unit"
    return config
