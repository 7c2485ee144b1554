"""ResNet-34 with the CIFAR stem and CutMix on CIFAR-100.

    python -m cifar_jax.main --config configs/resnet34.py

The recipe is that of configs/resnet18.py with weight decay 5e-4, to which Westlake-AI/openmixup
changes it for CutMix with its deeper network, ResNeXt-50 (81.52%, and 79.37% without a mix). There
is no published accuracy of ResNet-34 with it. Target: more than 79.78%, which
edadaltocg/resnet34_cifar100 reports after 300 epochs without a mix and with weight decay 5e-4; in
OpenMixup, CutMix adds 3.0 points to ResNet-18 and 2.2 to ResNeXt-50. weiaicunzai/pytorch-cifar100
has 76.76%, the best epoch on the test set. The deviations are those of configs/resnet18.py. The
recipe has not been run in full yet.
"""

from configs import resnet18


def get_config():
    config = resnet18.get_config()
    config.model.name = "resnet34"
    config.optim.weight_decay = 5e-4
    return config
