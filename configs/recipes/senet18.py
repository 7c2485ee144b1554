"""SE-ResNet-18 on CIFAR-100.

    python -m cifar_jax.main --config configs/recipes/senet18.py

The recipe is that of weiaicunzai/pytorch-cifar100: SGD with Nesterov momentum 0.9 and learning rate
0.1 after one epoch of warm-up, divided by 5 at epochs 60, 120 and 160, weight decay 5e-4, batch
128, 200 epochs, crops with 4 pixels of padding, flips, and rotations by up to 15 degrees. Target:
76.44%, the best epoch on the test set of one run. Nesterov momentum is stated in that repository's
README, but not used by its code. The recipe has not been run in full yet.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "senet18"
    config.model.reduction = 16
    config.batch_size = 128
    config.num_epochs = 200
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.1
    config.optim.momentum = 0.9
    config.optim.nesterov = True
    config.optim.weight_decay = 5e-4
    config.optim.schedule = "step"
    config.optim.warmup_epochs = 1.0
    config.optim.step_epochs = (60, 120, 160)
    config.optim.step_factor = 0.2
    config.augment.ops = "crop(4)|flip|rotation(15, interpolation='nearest', fill='constant')"
    config.dtype = "auto"
    config.checkpoint.every_epochs = 10
    return config
