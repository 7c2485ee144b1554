"""callbacks/stacked3: the 100 classes of CIFAR-100; better than the first attempts, says the
document.

    python -m cifar_jax.main --config configs/callbacks/stacked3.py

Three convolutions one behind the other; Adam 1e-3, batch 64, augmentation. The author's repository
has 47.18% at the best of 26 epochs for it. Missing here as yet: rotation, shear and zoom beside the
shifts, the callbacks that cut the rate (patience 2, factor 0.2) and stop (patience 5).
"""

from configs.callbacks import school


def get_config():
    config = school.get_config()
    config.model.name = "stacked3"
    config.num_epochs = 26
    return config
