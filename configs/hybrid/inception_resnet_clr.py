"""hybrid/inception_resnet_clr: the write-up's own network with a cyclical learning rate.

    python -m cifar_jax.main --config configs/hybrid/inception_resnet_clr.py

hybrid/inception_resnet with a learning rate that varies between 1.6e-5 and 3.98e-4, the limits from
the write-up's range test, by the triangular2 policy (Smith, 2017). The write-up gives no result and
no cycle length; cycles take 8 epochs here, within Smith's recommendation of 4 to 20.
"""

from configs.hybrid import inception_resnet


def get_config():
    config = inception_resnet.get_config()
    config.optim.learning_rate = 3.98e-4
    config.optim.schedule = "triangular2"
    config.optim.base_learning_rate = 1.6e-5
    config.optim.half_cycle_epochs = 4.0
    return config
