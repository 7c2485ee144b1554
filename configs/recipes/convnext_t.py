"""ConvNeXt-T with the CIFAR stem on CIFAR-100.

    python -m cifar_jax.main --config configs/recipes/convnext_t.py

The recipe is that of Westlake-AI/openmixup
(configs/classification/cifar100/mixups/vits/convnext_t_mixups_bs100.py): AdamW with learning rate
1e-3, 20 epochs of warm-up and a cosine to 1e-6, weight decay 0.05 except on biases, LN and gamma,
batch 100, 200 epochs, label smoothing 0.1, stochastic depth 0.3, RandAugment, and crops with 4
pixels of reflect padding. With CutMix, as here, JinXins/Adversarial-AutoMixup reports 82.46%
(mixup: 81.13%, none: 78.70%); it does not state the epoch. The best published mix, AdAutoMix,
reaches 83.54%.

Deviations: CutMix has alpha 1, as in OpenMixup's config that draws CutMix or mixup(0.8) for each
batch; the one that uses only CutMix has alpha 2. RandAugment applies one of torchvision's 14
operations, with magnitude 21 of 30; OpenMixup draws two of FixMatch's, of magnitude 7 of 10 with
noise, and applies each with probability 0.5. The recipe has not been run in full yet.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.model.name = "convnext_t"
    config.model.drop_path = 0.3
    config.batch_size = 100
    config.num_epochs = 200
    config.optim.name = "adamw"
    config.optim.learning_rate = 1e-3
    config.optim.weight_decay = 0.05
    config.optim.weight_decay_mask = "kernels"
    config.optim.schedule = "cosine"
    config.optim.final_learning_rate = 1e-6
    config.optim.warmup_epochs = 20.0
    config.label_smoothing = 0.1
    config.augment.ops = "crop(4, mode='reflect')|flip|randaugment(1, 21)"
    config.augment.mix = "cutmix(1.0)"
    config.dtype = "auto"
    config.checkpoint.every_epochs = 10
    return config
