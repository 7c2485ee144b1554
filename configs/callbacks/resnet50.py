"""callbacks/resnet50: the 100 classes of CIFAR-100; the write-up shows only figures.

    python -m cifar_jax.main --config configs/callbacks/resnet50.py

keras.applications.ResNet50 from random initialization, SGD 1e-3 with momentum 0.9, batch 128, 80
epochs on 40,000 images, 10,000 for validation; rotation up to 10 degrees, shifts of up to a tenth,
zoom and shear 0.1, flips; the learning rate is multiplied by 0.6 when the validation accuracy has
not improved for 3 epochs. The curve ends at a validation accuracy of about 74% and starts like
that of a network with frozen weights. Like the notebook of the author's team
(coreymunk/Deep-Learning-CIFAR-100), the write-up apparently starts from ImageNet weights on images
enlarged to 224 pixels, with all layers but BN frozen, followed by dropout 0.25, dense 256 and BN.
This config starts from random weights, so the results are not comparable;
configs/transfer/resnet50.py starts from ImageNet weights.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "resnet50"
    config.data.val_fraction = 0.2
    config.batch_size = 128
    config.num_epochs = 80
    config.optim.name = "sgd"
    config.optim.learning_rate = 1e-3
    config.optim.momentum = 0.9
    config.plateau.monitor = "accuracy"
    config.plateau.patience = 3
    config.plateau.factor = 0.6
    config.plateau.min_learning_rate = 1e-6
    config.augment.ops = (
        "affine(rotation=10, width_shift=0.1, height_shift=0.1, shear=0.1, zoom=0.1)|flip"
    )
    config.augment.normalize = "unit"
    return config
