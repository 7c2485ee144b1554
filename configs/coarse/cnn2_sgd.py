"""coarse/cnn2_sgd: published 46.9% on the 20 superclasses of CIFAR-100.

    python -m cifar_jax.main --config configs/coarse/cnn2_sgd.py

coarse/cnn2_adam with Keras's plain SGD at the same learning rate, 1e-3. The write-up gives no
number of epochs; 100 are used here, as for Adam.
"""

from configs.coarse import cnn2_adam


def get_config():
    config = cnn2_adam.get_config()
    config.optim.name = "sgd"
    return config
