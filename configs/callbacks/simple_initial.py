"""callbacks/simple_initial: published about 35% on the 100 classes of CIFAR-100.

    python -m cifar_jax.main --config configs/callbacks/simple_initial.py

One of the first attempts: two convolutions, one pool, dropout, one dense layer; Adam 1e-3, batch
64, no augmentation. The author's repository has 37.06% at the best of 11 epochs for it. Missing
here as yet: the callbacks that cut the rate (patience 2, factor 0.2) and stop (patience 5).
"""

from configs.callbacks import school


def get_config():
    config = school.get_config()
    config.model.name = "simple_initial"
    config.num_epochs = 11
    config.augment.ops = ""
    return config
