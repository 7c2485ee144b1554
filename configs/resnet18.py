"""ResNet-18 with the CIFAR stem on CIFAR-100: the suite's reference recipe.

    python -m cifar_jax.main --config configs/resnet18.py

Trains on all 50,000 images and reports the last epoch; nothing is selected on the test set.

The recipe is what public recipes that reach 75 to 79% on CIFAR-100 have in common: SGD with
Nesterov momentum 0.9 and learning rate 0.1, weight decay 5e-4 on every parameter, batch 128, 200
epochs, flips and crops with 4 pixels of zero padding (weiaicunzai/pytorch-cifar100: 75.61% for this
network, best epoch on the test set, with steps at 60/120/160 and rotation;
chenyaofo/pytorch-cifar-models: the same with a cosine for its ResNets). A cosine to zero replaces
the steps, because it needs no new milestones when the duration changes. One epoch of warm-up and
label smoothing 0.1 follow Goyal et al. (2017) and He et al. (2019), "Bag of Tricks". The recipe has
not been run in full yet.
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
