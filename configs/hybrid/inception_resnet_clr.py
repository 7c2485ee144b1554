"""hybrid/inception_resnet_clr: the document's own network with a cyclical rate; no number.

    python -m cifar_jax.main --config configs/hybrid/inception_resnet_clr.py

As hybrid/inception_resnet; the rate varies between 1.6e-5 and 3.98e-4, as the document read off its
range test, by the triangular2 policy (Smith, 2017). The document does not say how long a cycle
lasts; 8 epochs here, within Smith's advice of 4 to 20.
"""

from configs.hybrid import inception_resnet


def get_config():
    config = inception_resnet.get_config()
    config.optim.learning_rate = 3.98e-4
    config.optim.schedule = "triangular2"
    config.optim.base_learning_rate = 1.6e-5
    config.optim.half_cycle_epochs = 4.0
    return config
