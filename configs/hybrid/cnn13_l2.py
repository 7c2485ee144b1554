"""hybrid/cnn13_l2: the 100 classes of CIFAR-100; the best of the document's 13-layer runs, by its
figure.

    python -m cifar_jax.main --config configs/hybrid/cnn13_l2.py

As hybrid/cnn13_dropout with Keras' l2(4e-4), the factor of the author's repository, on the kernels;
its gradient is 8e-4 times the weight. There the first convolution and the dense layers are left
out, and the author's training loop never adds the term to the loss; here every kernel decays.
"""

from configs.hybrid import cnn13_dropout


def get_config():
    config = cnn13_dropout.get_config()
    config.optim.weight_decay = 8e-4
    config.optim.weight_decay_mask = "kernels"
    return config
