"""coarse/random_search: the network found by a random search (filters 32, 32, 64, 64, dense 128).

    python -m cifar_jax.main --config configs/coarse/random_search.py
    python -m cifar_jax.search --config configs/coarse/random_search.py

The write-up ran 10 trials of 50 epochs, with filters from {16, 32, 64} for the first two and
{32, 64, 128} for the last two convolutions, and dense units from {64, 128, 256}. The search
confirmed the network of coarse/cnn4. The first command trains it with the settings of a trial; the
second one repeats the search. The write-up does not say on which images it compared the trials.
Here, a tenth of the training images is held out.
"""

from configs.coarse import cnn4


def get_config():
    config = cnn4.get_config()
    config.model.filters = (32, 32, 64, 64)
    config.model.dense_units = 128
    config.num_epochs = 50
    config.search.space = """
        model.filters[0] in {16, 32, 64}
        model.filters[1] in {16, 32, 64}
        model.filters[2] in {32, 64, 128}
        model.filters[3] in {32, 64, 128}
        model.dense_units in {64, 128, 256}
    """
    config.search.num_trials = 10
    config.search.sampler = "random"
    config.search.pruner = "none"
    config.search.val_fraction = 0.1
    return config
