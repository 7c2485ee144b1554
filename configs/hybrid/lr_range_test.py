"""hybrid/lr_range_test: base rate 1.6e-5 and greatest rate 3.98e-4, read off a range test.

    python -m cifar_jax.main --config configs/hybrid/lr_range_test.py

hybrid/inception_resnet with a rate that grows from 1e-5 by a factor of 10^0.1 at every epoch
(Smith, 2017): in the document the accuracy starts to rise at 1.6e-5, the rate of the third epoch
(it says the second), and to fall at 3.98e-4, the rate of the 17th. 25 epochs lead to 2.5e-3. The
curves are in metrics.csv.
"""

from configs.hybrid import inception_resnet


def get_config():
    config = inception_resnet.get_config()
    config.num_epochs = 25
    config.optim.learning_rate = 1e-5
    config.optim.schedule = "exponential"
    config.optim.step_factor = 10**0.1
    return config
