"""A larger search around coarse/cnn4: the next step that its write-up recommends.

    python -m cifar_jax.search --config configs/search/coarse_cnn4.py

In addition to the space of coarse/random_search, this searches over the learning rate on a log
scale, dropout, the batch size and augmentation. It uses TPE instead of random sampling, and
hyperband to end bad trials early.
A tenth of the training images is held out; the last epoch of a cosine schedule is reported.
"""

from configs.coarse import random_search


def get_config():
    config = random_search.get_config()
    config.num_epochs = 27
    config.selected_on = "last"
    config.optim.schedule = "cosine"
    config.optim.warmup_epochs = 1.0
    config.search.space += """
        optim.learning_rate in log(1e-4, 1e-2)
        model.dropout[0] in uniform(0.0, 0.5)
        model.dropout[1] in uniform(0.0, 0.5)
        model.dropout[2] in uniform(0.2, 0.7)
        batch_size in {32, 64, 128}
        augment.ops in {"", "flip", "flip|crop(4)"}
    """
    config.search.num_trials = 100
    config.search.sampler = "tpe"
    config.search.pruner = "hyperband"
    return config
