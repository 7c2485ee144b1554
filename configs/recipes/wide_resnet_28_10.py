"""WRN-28-10 with sharpness-aware minimization on CIFAR-100.

    python -m cifar_jax.main --config configs/recipes/wide_resnet_28_10.py

Target: 83.5%, which Foret et al. (2021), "Sharpness-Aware Minimization", report for this network
after 200 epochs with crops and flips (mean of 5 runs; 81.2% without SAM). They report 85.1% with
cutout (--config.augment.ops="crop(4)|flip|cutout(16)") and 86.4% with AutoAugment.

Batch size, learning rate, number of epochs and the clipping of gradients at norm 5 are theirs
(google-research/sam). The other hyperparameters are those that LOG-postech/Sassha found best for
SAM on CIFAR-100: rho 0.15, weight decay 1e-3, and a learning rate that falls to a fifth at epochs
60, 120 and 160; theirs are rho 0.05, weight decay 5e-4 and a cosine. A step takes about twice as
long as without SAM. The recipe has not been run in full yet.

Deviations: weight decay is added to the clipped gradient. In the source, it is part of the loss,
and so of both the gradient along which SAM ascends and the one that is clipped. Every device
ascends along the gradient of the whole batch; in the source, along that of its own part.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "wide_resnet_28_10"
    config.model.dropout = 0.0
    config.batch_size = 256
    config.num_epochs = 200
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.1
    config.optim.momentum = 0.9
    config.optim.nesterov = True
    config.optim.weight_decay = 1e-3
    config.optim.clip_norm = 5.0
    config.optim.sam_rho = 0.15
    config.optim.schedule = "step"
    config.optim.step_epochs = (60, 120, 160)
    config.optim.step_factor = 0.2
    config.augment.ops = "crop(4)|flip"
    config.dtype = "auto"
    config.checkpoint.every_epochs = 10
    return config
