"""hybrid/resnet18: the 100 classes of CIFAR-100; the document shows figures, no numbers.

    python -m cifar_jax.main --config configs/hybrid/resnet18.py

The classical ResNet-18 in Keras' conventions, with a 3x3 stem, on the augmented images; Adam 1e-4,
batch 128, 200 epochs as in hybrid/cnn13. The author's code departs from the classical one: a valid
stem with a max-pool of stride 1, a relu before the addition as well, shortcuts without BN, dropout
0.3 and l2(4e-3), all of it called in inference mode. Not followed here.
"""

from configs.hybrid import cnn13_augment


def get_config():
    config = cnn13_augment.get_config()
    config.model.name = "resnet18"
    config.model.conventions = "keras"
    return config
