"""VGG19 from ImageNet weights, fine-tuned on CIFAR-100 at 224 pixels, for a GPU.

    python -m cifar_jax.main --config configs/transfer/vgg19.py

The recipe of configs/transfer/vgg16.py. It has not been run in full yet.
"""

from configs.transfer import vgg16

BODY = (64, 64, "M", 128, 128, "M", *(256,) * 4, "M", *(512,) * 4, "M", *(512,) * 4, "M")


def get_config():
    config = vgg16.get_config()
    config.model.name = "vgg19"
    config.model.layers = (*BODY, "A")
    return config
