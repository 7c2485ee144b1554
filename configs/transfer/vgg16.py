"""VGG16 from ImageNet weights, fine-tuned on CIFAR-100 at 224 pixels, for a GPU.

    python -m cifar_jax.main --config configs/transfer/vgg16.py

It uses the weights of keras.applications and Keras's preprocessing, and resizes images to the size
that VGG16 was trained with. Global average pooling replaces the flattening, so the head is one
dense layer on 512 features. Only the head trains in the first epoch, because the large gradients of
a random head would destroy what the body has learned (Howard and Ruder, 2018); then all layers
train, each block at 0.7 times the learning rate of the one after it. Because VGG16 has no
BatchNorm, the learning rate is small and gradients are clipped. The recipe has not been run in full
yet.

With images of 32 pixels and 4 epochs, in float32 on a CPU, it reaches 41.23%. Without the weights
(transfer.weights="", unfreeze_epochs=(), layer_decay=1.0), the same 4 epochs reach 18.90%. The
logs, of one seed each, are in the folders tuned and scratch of
benchmarks/results/checks/vgg16_transfer.
"""

from cifar_jax.config import base

BODY = (64, 64, "M", 128, 128, "M", *(256,) * 3, "M", *(512,) * 3, "M", *(512,) * 3, "M")


def get_config():
    config = base.get_config()
    config.model.name = "vgg16"
    config.model.layers = (*BODY, "A")
    config.transfer.weights = "keras"
    config.transfer.unfreeze_epochs = (0, 1)
    config.transfer.layer_decay = 0.7
    config.batch_size = 128
    config.num_epochs = 15
    config.optim.name = "sgd"
    config.optim.learning_rate = 0.01
    config.optim.momentum = 0.9
    config.optim.nesterov = True
    config.optim.weight_decay = 1e-4
    config.optim.weight_decay_mask = "kernels"
    config.optim.clip_norm = 1.0
    config.optim.schedule = "cosine"
    config.label_smoothing = 0.1
    config.augment.ops = "flip|crop(4)"
    config.augment.resize = 224
    config.augment.resize_method = "bicubic"
    config.augment.normalize = "caffe"
    config.dtype = "auto"
    return config
