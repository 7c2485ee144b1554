"""A small network on the embedded synthetic images: no download, about a minute on two CPU cores.

python -m cifar_jax.main --config configs/quickstart.py
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.data.name = "synthetic"
    config.data.val_fraction = 0.1
    config.model.name = "cnn3"
    config.batch_size = 64
    config.num_epochs = 10
    config.selected_on = "val"
    config.optim.learning_rate = 1e-3
    config.augment.ops = "crop(2)"
    return config
