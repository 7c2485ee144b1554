"""ResNet-18 with the CIFAR stem on CIFAR-100: the suite's reference recipe.

    python -m cifar_jax.main --config configs/resnet18.py

Trains on all 50,000 images and reports the last epoch; nothing is picked on the test set.

The recipe is the common ground of the public ones that reach 75 to 79% here: SGD with Nesterov
momentum 0.9 from 0.1, weight decay 5e-4 on every parameter, batch 128, 200 epochs, flips and
crops with 4 pixels of zeros (weiaicunzai/pytorch-cifar100: 75.61% for this network, best epoch on
the test set, steps at 60/120/160 and rotation besides; chenyaofo/pytorch-cifar-models: the same
with a cosine for its ResNets). The cosine to zero takes the steps' place, since it needs no
milestones when the length changes; one epoch of warm-up and label smoothing 0.1 are as in
Goyal et al. (2017) and He et al. (2019), "Bag of Tricks". Not yet run in full here: no result.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "resnet18"
    config.model.width = 64
    config.batch_size = 128
    config.num_epochs = 200
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.1
    config.optim.momentum = 0.9
    config.optim.nesterov = True
    config.optim.weight_decay = 5e-4
    config.optim.schedule = "cosine"
    config.optim.warmup_epochs = 1.0
    config.label_smoothing = 0.1
    config.augment.ops = "flip|crop(4)"
    config.dtype = "auto"
    config.checkpoint.every_epochs = 10
    return config
