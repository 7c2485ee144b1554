"""hybrid/inception_resnet_clr: the document's own network with a cyclical rate; no number.

    python -m cifar_jax.main --config configs/hybrid/inception_resnet_clr.py

As hybrid/inception_resnet; the document varies the rate between 1.6e-5 and 3.98e-4 by the
triangular2 policy (Smith, 2017), which is missing here as yet: the rate stands at the greatest.
"""

from configs.hybrid import inception_resnet


def get_config():
    config = inception_resnet.get_config()
    config.optim.learning_rate = 3.98e-4
    return config
