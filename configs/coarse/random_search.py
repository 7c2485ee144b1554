"""coarse/random_search: the network found by a random search (filters 32, 32, 64, 64, dense 128).

    python -m cifar_jax.main --config configs/coarse/random_search.py

The write-up ran 10 trials of 50 epochs, with filters from {16, 32, 64} for the first two and
{32, 64, 128} for the last two convolutions, and dense units from {64, 128, 256}. The search
confirmed the network of coarse/cnn4, which is trained here as in a trial.
"""

from configs.coarse import cnn4


def get_config():
    config = cnn4.get_config()
    config.model.filters = (32, 32, 64, 64)
    config.model.dense_units = 128
    config.num_epochs = 50
    return config
