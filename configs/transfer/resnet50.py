"""ResNet-50 from ImageNet weights, fine-tuned on CIFAR-100 at 224 pixels, for a GPU.

    python -m cifar_jax.main --config configs/transfer/resnet50.py

It uses the weights of keras.applications and Keras's preprocessing, and resizes images to the size
that the network was trained with. Only the head trains in the first epoch; then all layers train,
each stage at 0.8 times the learning rate of the one after it. BatchNorm's statistics adapt to the
new images. The recipe has not been run in full yet.
"""

from configs.transfer import vgg16


def get_config():
    config = vgg16.get_config()
    del config.model.layers
    config.model.name = "resnet50"
    config.transfer.layer_decay = 0.8
    config.optim.learning_rate = 0.02
    config.optim.clip_norm = 0.0
    return config
