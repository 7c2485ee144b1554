"""hybrid/cnn13_l2: the best 13-layer run in the write-up's figure, on CIFAR-100's 100 classes.

    python -m cifar_jax.main --config configs/hybrid/cnn13_l2.py

hybrid/cnn13_dropout with Keras's l2(4e-4) on the kernels, whose gradient is 8e-4 times the weight.
The factor is that of the author's repository, which excludes the first convolution and the dense
layers, and whose training loop never adds the term to the loss; here it applies to every kernel.
"""

from configs.hybrid import cnn13_dropout


def get_config():
    config = cnn13_dropout.get_config()
    config.optim.weight_decay = 8e-4
    config.optim.weight_decay_mask = "kernels"
    return config
