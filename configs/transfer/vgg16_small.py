"""A linear head on the features of VGG16 from ImageNet weights, at 64 pixels, for a CPU.

    python -m cifar_jax.main --config configs/transfer/vgg16_small.py

The body of configs/transfer/vgg16.py keeps its ImageNet weights, and nothing augments the images,
so the 512 features of each image are computed once; after that, an epoch takes half a second on two
CPU cores. It reaches 50.51% (benchmarks/results/checks/transfer/vgg16_small, one seed).
"""

from configs.transfer import vgg16


def get_config():
    config = vgg16.get_config()
    config.transfer.train = "head"
    config.transfer.unfreeze_epochs = ()
    config.transfer.layer_decay = 1.0
    config.num_epochs = 30
    config.optim.name = "adam"
    config.optim.learning_rate = 1e-3
    config.optim.momentum = 0.0
    config.optim.nesterov = False
    config.optim.weight_decay = 0.0
    config.optim.clip_norm = 0.0
    config.label_smoothing = 0.0
    config.augment.ops = ""
    config.augment.resize = 64
    return config
