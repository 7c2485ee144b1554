"""coarse/cnn2_lr1e2: published as random guessing, 5.0%, on the 20 superclasses of CIFAR-100.

    python -m cifar_jax.main --config configs/coarse/cnn2_lr1e2.py

coarse/cnn2_batch64 with a learning rate of 1e-2. All five runs on an Intel Xeon collapse in the
first epoch and stay at 5.00%, as in the write-up. Of four runs on an AMD EPYC, two learn, one of
them up to 29.67%; three of the four were stopped after two epochs. Unscaled pixels would explain
the 5%, because with them, training at this learning rate also ends at 5.00%. They would not explain
the other results: coarse/cnn2_batch64 reaches only 33.30% with them in 6 epochs, far below the
published 49.6% (benchmarks/results/checks/unscaled_pixels).
"""

from configs.coarse import cnn2_batch64


def get_config():
    config = cnn2_batch64.get_config()
    config.optim.learning_rate = 1e-2
    return config
