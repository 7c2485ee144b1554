"""hybrid/cnn13_dropout: the 100 classes of CIFAR-100; the document shows figures, no numbers.

    python -m cifar_jax.main --config configs/hybrid/cnn13_dropout.py

As hybrid/cnn13_augment with dropout, at the places and rates of the author's repository: 0.3 in
each unit, 0.4 behind the first dense layer. (There it never acts: the author's own training loop
calls the network in inference mode, BN and dropout alike. Here it does what the document says of
it.)
"""

from configs.hybrid import cnn13_augment


def get_config():
    config = cnn13_augment.get_config()
    config.model.dropout = (0.3, 0.3, 0.3, 0.3, 0.3, 0.4)
    return config
