"""VGG-16 with BatchNorm on CIFAR-100.

    python -m cifar_jax.main --config configs/recipes/vgg16_bn.py

The recipe is that of chenyaofo/pytorch-cifar-models: SGD with Nesterov momentum 0.9 and learning
rate 0.1 with a cosine to 0, weight decay 5e-4, batch 256, 200 epochs, crops with 4 pixels of
padding and flips. Target: 74.00%, the best epoch on the test set of one run; the last epoch of
other networks there is up to 0.6 points below their best one. The recipe has not been run in full
yet.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "vgg16_bn"
    config.model.dropout = 0.5
    config.batch_size = 256
    config.num_epochs = 200
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.1
    config.optim.momentum = 0.9
    config.optim.nesterov = True
    config.optim.weight_decay = 5e-4
    config.optim.schedule = "cosine"
    config.augment.ops = "crop(4)|flip"
    config.dtype = "auto"
    config.checkpoint.every_epochs = 10
    return config
