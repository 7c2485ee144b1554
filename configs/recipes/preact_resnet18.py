"""Pre-activation ResNet-18 with mixup on CIFAR-100.

    python -m cifar_jax.main --config configs/recipes/preact_resnet18.py

The recipe is that of Zhang et al. (2018), "mixup: Beyond Empirical Risk Minimization": SGD with
momentum 0.9 and learning rate 0.1, divided by 10 at epochs 100 and 150, weight decay 1e-4, batch
128, 200 epochs, crops with 4 pixels of padding and flips, and mixup with alpha 1
(facebookresearch/mixup-cifar10). Target: 78.9%, that is, the paper's error of 21.1% (25.6% without
mixup). weiaicunzai/pytorch-cifar100 has 72.92% for this network without mixup, the best epoch on
the test set.

Deviations: the authors use no Nesterov momentum, and draw one mixing weight per batch instead of
one per image. The recipe has not been run in full yet.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "preact_resnet18"
    config.model.width = 64
    config.batch_size = 128
    config.num_epochs = 200
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.1
    config.optim.momentum = 0.9
    config.optim.nesterov = True
    config.optim.weight_decay = 1e-4
    config.optim.schedule = "step"
    config.optim.step_epochs = (100, 150)
    config.optim.step_factor = 0.1
    config.augment.ops = "crop(4)|flip"
    config.augment.mix = "mixup(1.0)"
    config.dtype = "auto"
    config.checkpoint.every_epochs = 10
    return config
