"""hybrid/cnn_shallow: the 100 classes of CIFAR-100; a little better than cnn13, by the document's
figure.

    python -m cifar_jax.main --config configs/hybrid/cnn_shallow.py

As hybrid/cnn13_l2 with the first three of its five units. The document says "a shallower
structure", no more.
"""

from configs.hybrid import cnn13_l2


def get_config():
    config = cnn13_l2.get_config()
    config.model.name = "cnn9"
    config.model.dropout = (0.3, 0.3, 0.3, 0.4)
    return config
