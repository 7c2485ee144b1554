"""callbacks/school_improved: published 64% on the 100 classes of CIFAR-100, in under 40 minutes.

    python -m cifar_jax.main --config configs/callbacks/school_improved.py

As callbacks/school with other augmentation and more patience, at the last of 80 epochs. The
document says a vertical flip in the place of shear; the notebook in the author's repository
(kurtameyer/CIFAR100) flips horizontally, and zooms by 0.2. Missing here as yet: rotation, zoom, the
callbacks (cut the rate by half after 8 epochs without gain, stop after 12).
"""

from configs.callbacks import school


def get_config():
    config = school.get_config()
    config.num_epochs = 80
    config.selected_on = "last"
    config.augment.ops = "shift(0.2, 0.2)|flip"
    return config
