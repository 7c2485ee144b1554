"""callbacks/simple_initial: published about 35% on the 100 classes of CIFAR-100.

    python -m cifar_jax.main --config configs/callbacks/simple_initial.py

One of the first attempts: two convolutions, one pool, dropout, one dense layer; Adam 1e-3, batch
64, no augmentation. The team's notes (coreymunk/Deep-Learning-CIFAR-100) have 36.74% at the last of
11 epochs for it, 37.06% at the best, which lies before the first cut of the rate: the callbacks
(patience 3, factor 0.2; stop after 8), missing here as yet, do not change its number.
"""

from configs.callbacks import school


def get_config():
    config = school.get_config()
    config.model.name = "simple_initial"
    config.num_epochs = 11
    config.selected_on = "last"
    config.augment.ops = ""
    return config
