"""PyramidNet-110 with alpha 270 and ShakeDrop on CIFAR-100.

    python -m cifar_jax.main --config configs/recipes/pyramidnet.py

The recipe is that of owruby/shake-drop_pytorch: SGD with Nesterov momentum 0.9 and learning rate
0.5, divided by 10 at epochs 150 and 225, weight decay 1e-4, batch 128, 300 epochs, crops with 4
pixels of padding and flips. Target: 83.90%, reported by that repository, which does not state the
epoch; Yamada et al. (2018) report 83.78%. Deviation: both decide once per batch whether a block is
shaken; here, this is decided for each image. The recipe has not been run in full yet.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "pyramidnet"
    config.model.depth = 110
    config.model.alpha = 270
    config.model.shake_drop = 0.5
    config.batch_size = 128
    config.num_epochs = 300
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.5
    config.optim.momentum = 0.9
    config.optim.nesterov = True
    config.optim.weight_decay = 1e-4
    config.optim.schedule = "step"
    config.optim.step_epochs = (150, 225)
    config.optim.step_factor = 0.1
    config.augment.ops = "crop(4)|flip"
    config.dtype = "auto"
    config.checkpoint.every_epochs = 10
    return config
