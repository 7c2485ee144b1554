"""callbacks/simple_initial: published about 35% on the 100 classes of CIFAR-100.

    python -m cifar_jax.main --config configs/callbacks/simple_initial.py

One of the first attempts: two convolutions, one pool, dropout, one dense layer; Adam 1e-3, batch
64, no augmentation. The learning rate is divided by 5 after 3 epochs without improvement of the
test loss, and training stops after 8 such epochs. The notes of the author's team
(coreymunk/Deep-Learning-CIFAR-100) report 36.74% at the last of 11 epochs and 37.06% at the best.
"""

from configs.callbacks import school


def get_config():
    config = school.get_config()
    config.model.name = "simple_initial"
    config.num_epochs = 50
    config.plateau.patience = 3
    config.plateau.factor = 0.2
    config.early_stopping.patience = 8
    config.selected_on = "last"
    config.augment.ops = ""
    return config
