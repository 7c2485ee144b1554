"""speed_resnet on CIFAR-100: a network for 75% within seconds.

    python -m cifar_jax.main --config configs/speedrun/cifar100_75.py

Only the network is that of the submission NAVIER-STOKED to AIDDA-Institute/CIFAR-100-speedrun; the
training recipe is the base config's.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "speed_resnet"
    config.model.widths = (64, 256, 768)
    config.model.mid_widths = (64, 192, 512)
    config.model.logit_scale = 1.25 / 9
    return config
