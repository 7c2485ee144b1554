"""hybrid/lr_range_test: published as learning rates from 1.6e-5 to 3.98e-4.

    python -m cifar_jax.main --config configs/hybrid/lr_range_test.py

hybrid/inception_resnet with a learning rate that grows from 1e-5 by a factor of 10^0.1 per epoch
(Smith, 2017). In the write-up, the accuracy starts to rise at 1.6e-5 and to fall at 3.98e-4. These
are the learning rates of epochs 3 and 17; the write-up says 2 instead of 3. After 25 epochs the
learning rate is 2.5e-3. The curves are in metrics.csv.
"""

from configs.hybrid import inception_resnet


def get_config():
    config = inception_resnet.get_config()
    config.num_epochs = 25
    config.optim.learning_rate = 1e-5
    config.optim.schedule = "exponential"
    config.optim.step_factor = 10**0.1
    return config
