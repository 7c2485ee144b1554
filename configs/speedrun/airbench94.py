"""airbench94 on CIFAR-10: the network of KellerJordan/cifar10-airbench's airbench94_muon.py.

    python -m cifar_jax.main --config configs/speedrun/airbench94.py

Only the network is that of the script; the training recipe is the base config's.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.data.name = "cifar10"
    config.model.name = "airbench"
    config.model.widths = (64, 256, 256)
    config.model.depth = 2
    config.model.bn_momentum = 0.6
    config.model.logit_scale = 1 / 256
    config.model.init = "muon"
    return config
