"""ResNet-34 with the CIFAR stem on CIFAR-100: the recipe of configs/resnet18.py.

    python -m cifar_jax.main --config configs/resnet34.py

A similar recipe is published for this network: 76.76% at the best epoch on the test set
(weiaicunzai/pytorch-cifar100). The recipe has not been run in full yet.
"""

from configs import resnet18


def get_config():
    config = resnet18.get_config()
    config.model.name = "resnet34"
    return config
