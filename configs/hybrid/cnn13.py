"""hybrid/cnn13: the 100 classes of CIFAR-100; the document shows figures, no numbers.

    python -m cifar_jax.main --config configs/hybrid/cnn13.py

Keras; thirteen weight layers, which overfit. The test set stands in the place of a validation
split; scored at the last epoch. Adam 1e-4, batch 128 and 200 epochs are those of the author's
repository, chentalen2021/CIFAR100_classification, as are the network's BN layers and images scaled
by their mean and deviation: per channel here, over all channels there.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "cnn13"
    config.batch_size = 128
    config.num_epochs = 200
    config.optim.learning_rate = 1e-4
    config.optim.eps = 1e-7
    return config
