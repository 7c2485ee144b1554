"""coarse/cnn2_sgd: published 46.9% on the 20 superclasses of CIFAR-100.

    python -m cifar_jax.main --config configs/coarse/cnn2_sgd.py

As coarse/cnn2_adam, but Keras' plain SGD with the same rate, 1e-3. The document gives no number of
epochs; 100 here, as for Adam.
"""

from configs.coarse import cnn2_adam


def get_config():
    config = cnn2_adam.get_config()
    config.optim.name = "sgd"
    return config
