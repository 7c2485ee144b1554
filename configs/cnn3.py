"""cnn3 on CIFAR-100's 100 classes, with the epoch selected on a validation split.

    python -m cifar_jax.main --config configs/cnn3.py

The network and recipe of the assignment write-up (batch 32, Adam 1e-4, flips and shifts, 150
epochs, 17% for validation); configs/assignment/cnn3.py is the published run.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "cnn3"
    config.model.dropout = (0.1, 0.25, 0.5)
    config.data.val_fraction = 0.17
    config.batch_size = 32
    config.num_epochs = 150
    config.selected_on = "val"
    config.optim.learning_rate = 1e-4
    config.augment.ops = "shift(0.1, 0.1)|flip"
    config.augment.normalize = "unit"
    return config
