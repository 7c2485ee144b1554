"""A linear head on the features of Xception from ImageNet weights, at 71 pixels, for a CPU.

    python -m cifar_jax.main --config configs/transfer/xception_small.py

The recipe of configs/transfer/vgg16_small.py, with 2,048 features per image, at the smallest size
that keras.applications accepts. It reaches 51.95%
(benchmarks/results/checks/transfer/xception_small, one seed).
"""

from configs.transfer import resnet50_small


def get_config():
    config = resnet50_small.get_config()
    config.model.name = "xception"
    config.augment.resize = 71
    config.augment.normalize = "symmetric"
    return config
