"""assignment/adam_1e3: "no substantive convergence" on the 100 classes of CIFAR-100.

    python -m cifar_jax.main --config configs/assignment/adam_1e3.py

As assignment/cnn3 with Adam's rate at 1e-3. The document gives no number and does not say with
which of its networks it saw this.
"""

from configs.assignment import cnn3


def get_config():
    config = cnn3.get_config()
    config.optim.learning_rate = 1e-3
    return config
