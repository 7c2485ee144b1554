"""cifar10/resnet18: published 71% on CIFAR-10.

    python -m cifar_jax.main --config configs/cifar10/resnet18.py

PyTorch; torchvision's ResNet-18 with its ImageNet stem on 32x32 images, from scratch. The write-up
gives 8 epochs, with a learning rate of 0.001 after the 4th. The author's repository has 7 epochs;
it is the source of batch 16, SGD without momentum, the initial learning rate of 0.01 and the second
drop after the 7th epoch. The author evaluates in training mode; see configs/cifar10/cnn_deep.py.
"""

from configs.cifar10 import cnn_deep


def get_config():
    config = cnn_deep.get_config()
    config.model.name = "resnet18"
    config.model.stem = "imagenet"
    config.num_epochs = 8
    config.optim.step_epochs = (4, 7)
    return config
