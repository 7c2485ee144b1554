"""cnn4 on CIFAR-100's 20 superclasses, with the epoch selected on a validation split.

    python -m cifar_jax.main --config configs/cnn4.py

The best network of the write-up on coarse labels (batch 64, Adam 1e-3, 100 epochs). The write-up
selects the epoch on the test set; see configs/coarse/ for that.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "cnn4"
    config.model.dropout = (0.25, 0.25, 0.5)
    config.data.label = "coarse"
    config.data.val_fraction = 0.1
    config.batch_size = 64
    config.num_epochs = 100
    config.selected_on = "val"
    config.optim.learning_rate = 1e-3
    config.optim.eps = 1e-7
    config.augment.normalize = "unit"
    return config
