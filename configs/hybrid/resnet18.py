"""hybrid/resnet18: the 100 classes of CIFAR-100; the write-up shows only figures.

    python -m cifar_jax.main --config configs/hybrid/resnet18.py

The original ResNet-18 in Keras's conventions, with a 3x3 stem, on augmented images; Adam 1e-4,
batch 128 and 200 epochs as in hybrid/cnn13. The author's code differs and is not followed: it has a
stem with valid padding and a max-pool with stride 1, an additional relu before the addition,
shortcuts without BN, dropout 0.3 and l2(4e-3), and trains in inference mode.
"""

from configs.hybrid import cnn13_augment


def get_config():
    config = cnn13_augment.get_config()
    config.model.name = "resnet18"
    config.model.conventions = "keras"
    return config
