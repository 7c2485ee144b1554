"""assignment/adam_1e3: "no substantive convergence" on the 100 classes of CIFAR-100.

    python -m cifar_jax.main --config configs/assignment/adam_1e3.py

assignment/cnn3 with Adam's learning rate at 1e-3. The write-up gives no number and does not say for
which of its networks it observed this.

With cnn3, one run converges: 47.96% after 150 epochs, where the learning rate of 1e-4 gives 51.87%.
"""

from configs.assignment import cnn3


def get_config():
    config = cnn3.get_config()
    config.optim.learning_rate = 1e-3
    return config
