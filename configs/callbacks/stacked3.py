"""callbacks/stacked3: published as better than the first attempts on the 100 classes of CIFAR-100.

    python -m cifar_jax.main --config configs/callbacks/stacked3.py

Three consecutive convolutions; Adam 1e-3, batch 64; rotation by up to 20 degrees, shifts of up to a
fifth, zoom and shear 0.2. The learning rate is divided by 5 after 2 epochs without improvement of
the test loss, and training stops after 5 such epochs. The notes of the author's team
(coreymunk/Deep-Learning-CIFAR-100) report 46.99% at the last of 26 epochs.
"""

from configs.callbacks import school


def get_config():
    config = school.get_config()
    config.model.name = "stacked3"
    config.num_epochs = 100
    config.plateau.patience = 2
    config.plateau.factor = 0.2
    config.early_stopping.patience = 5
    config.selected_on = "last"
    config.augment.ops = (
        "affine(rotation=20, width_shift=0.2, height_shift=0.2, shear=0.2, zoom=0.2)"
    )
    return config
