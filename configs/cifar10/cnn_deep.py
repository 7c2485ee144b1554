"""cifar10/cnn_deep: published 69% on CIFAR-10.

    python -m cifar_jax.main --config configs/cifar10/cnn_deep.py

PyTorch; mini-batch SGD with a step schedule, pixels in [-1, 1], no augmentation; the last epoch is
reported. The write-up gives no hyperparameters; those in the author's repository,
TimofeyKruk/ImageClassifierCIFAR10, are batch 16, no momentum, 10 epochs and a learning rate of
0.01, divided by 10 at epochs 5, 7 and 9.

Deviation: the author evaluates in training mode, with dropout active and BN using the statistics of
each test batch; this suite evaluates in inference mode. That explains the whole difference: 72.93%
here, 68.1 to 68.7% for the same weights in training mode
(benchmarks/results/checks/cnn_deep_in_training_mode.txt).
"""

from configs.cifar10 import cnn_small


def get_config():
    config = cnn_small.get_config()
    config.model.name = "cnn_deep"
    config.num_epochs = 10
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.01
    config.optim.schedule = "step"
    config.optim.step_epochs = (5, 7, 9)
    return config
