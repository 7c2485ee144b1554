"""ResNeXt-29, 8x64d, on CIFAR-100.

    python -m cifar_jax.main --config configs/recipes/resnext29.py

The recipe is that of Xie et al. (2017): SGD with Nesterov momentum 0.9 and learning rate 0.1,
divided by 10 at epochs 150 and 225, weight decay 5e-4, batch 128, 300 epochs, crops with 4 pixels
of padding and flips. Target: 82.23%, that is, the paper's error of 17.77% (mean of 10 runs);
bearpaw/pytorch-classification has 82.62%, the best epoch on the test set. The recipe has not been
run in full yet.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "resnext29"
    config.model.cardinality = 8
    config.model.width = 64
    config.batch_size = 128
    config.num_epochs = 300
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.1
    config.optim.momentum = 0.9
    config.optim.nesterov = True
    config.optim.weight_decay = 5e-4
    config.optim.schedule = "step"
    config.optim.step_epochs = (150, 225)
    config.optim.step_factor = 0.1
    config.augment.ops = "crop(4)|flip"
    config.dtype = "auto"
    config.checkpoint.every_epochs = 10
    return config
