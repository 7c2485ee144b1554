"""cifar10/resnet18: published 71% on CIFAR-10.

    python -m cifar_jax.main --config configs/cifar10/resnet18.py

PyTorch; torchvision's ResNet-18 with its ImageNet stem on images of 32x32, from scratch, 8 epochs,
rate 0.001 after the 4th, as the document says; the author's repository has 7 epochs. Batch 16, SGD
without momentum, the rate of 0.01 before and a second drop after the 7th epoch are that
repository's, as is the evaluation in training mode that configs/cifar10/cnn_deep.py speaks of.
"""

from configs.cifar10 import cnn_deep


def get_config():
    config = cnn_deep.get_config()
    config.model.name = "resnet18"
    config.model.stem = "imagenet"
    config.num_epochs = 8
    config.optim.step_epochs = (4, 7)
    return config
