"""DenseNet-121 with the CIFAR stem on CIFAR-100.

    python -m cifar_jax.main --config configs/recipes/densenet121.py

The recipe is that of weiaicunzai/pytorch-cifar100 (train.py, conf/global_settings.py): SGD with
momentum 0.9 without Nesterov, learning rate 0.1, multiplied by 0.2 at epochs 60, 120 and 160, one
epoch of warm-up, weight decay 5e-4 on every parameter, batch 128, 200 epochs, flips, crops with 4
pixels of zero padding and rotations by up to 15 degrees. Its README reports 77.01% from a single
run, the best epoch on the test set.

Deviations: this config reports the last epoch; rotations use bilinear instead of nearest-neighbor
interpolation. The recipe has not been run in full yet.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "densenet121"
    config.batch_size = 128
    config.num_epochs = 200
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.1
    config.optim.momentum = 0.9
    config.optim.weight_decay = 5e-4
    config.optim.schedule = "step"
    config.optim.step_epochs = (60, 120, 160)
    config.optim.step_factor = 0.2
    config.optim.warmup_epochs = 1.0
    config.augment.ops = "crop(4)|flip|rotation(15, fill='constant')"
    config.dtype = "auto"
    config.checkpoint.every_epochs = 10
    return config
