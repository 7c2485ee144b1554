"""ResNet-18 with the CIFAR stem on CIFAR-100 in 30 epochs.

    python -m cifar_jax.main --config configs/resnet18_30epochs.py

The goal is an accuracy of at most 1.5 points below the target of configs/resnet18.py, that is,
77.95%. It has not been measured: no source has this recipe, which combines parts of published ones,
and it has not been run in full yet.

- Schedule: a linear rise and a linear fall to 0, as in two recipes of similar length,
  davidcpage/cifar10-fast (24 epochs) and airbench96 of KellerJordan/cifar10-airbench (37 epochs).
  The rise starts at a fifth of the peak, as in the second, and takes a fifth of the training, as in
  the first. Li et al. (2020), "Budgeted Training", find a linear fall to 0 the best schedule for
  short training.
- Learning rate and weight decay: the peak of 0.2 is twice that of the long recipe. The product of
  both, which determines how fast old updates are forgotten, must grow as training gets shorter.
  Per image and divided by 1 - momentum, that product is twice as large as in the first of these
  recipes and 0.77 times as large as in the second; with weight decay 1e-4, it would be 0.4 times as
  large as in the first.
- Nesterov momentum, which both have, and label smoothing: 0.1, where airbench96 has 0.2 but no mix.
- CutMix is milder: with alpha 0.1 instead of 0.2, 81% instead of 67% of the weights are below 0.1
  or above 0.9. Short training fits the images less closely and needs less regularization: below
  about 12 epochs on CIFAR-100, mixes are reported not to help, and in a recipe of 41 epochs for
  another network, adding CutMix to half of the batches lowered the accuracy by 0.66 points
  (rlacombe/distillate-xp-cifar-100-speedrun-5m-codex-cli, which already had mixup and RandAugment).
- The evaluated weights are a moving average over about half an epoch. It should matter little,
  since the learning rate is almost 0 in that time, but it removes noise from the last steps.
"""

from configs import resnet18


def get_config():
    config = resnet18.get_config()
    config.batch_size = 128
    config.num_epochs = 30
    config.optim.learning_rate = 0.2
    config.optim.nesterov = True
    config.optim.weight_decay = 5e-4
    config.optim.schedule = "linear_one_cycle"
    config.optim.base_learning_rate = 0.04
    config.optim.rise = 0.2
    config.ema.decay = 0.995
    config.label_smoothing = 0.1
    config.augment.mix = "cutmix(0.1)"
    return config
