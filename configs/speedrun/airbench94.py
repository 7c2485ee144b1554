"""airbench94 on CIFAR-10 with Muon: 94% in 8 epochs, KellerJordan/cifar10-airbench.

    python -m cifar_jax.main --config configs/speedrun/airbench94.py

The script airbench94_muon.py reports a mean of 94.01% over 200 runs, in 2.59 s on an A100 (400 W,
PyTorch 2.4.1). Its clock covers whitening, augmentation, training and the last evaluation, which
averages six views of each image, but neither the upload of the data nor compilation. Images are
shifted by up to two pixels and mirrored in every other epoch. Muon trains the convolutions, SGD the
head and the biases; the stem's bias trains for three epochs. The recipe has not been run in full
yet.

The loss is the mean over the batch here and the sum in the script. So the script's learning rates
of SGD are multiplied by the batch size, and its weight decays, which are added to the gradient, are
divided by it. Muon's updates do not depend on the norm of the gradient.

Deviations: bfloat16 and float32 instead of float16; on CPUs, float32 for Muon's iterations instead
of bfloat16; the same half of the images starts mirrored with every seed; BatchNorm keeps the biased
running variance; the whitening filters are in the opposite order, which permutes channels.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.data.name = "cifar10"
    config.model.name = "airbench"
    config.model.widths = (64, 256, 256)
    config.model.depth = 2
    config.model.bn_momentum = 0.6
    config.model.logit_scale = 1 / 256
    config.model.init = "muon"
    config.batch_size = 2000
    config.num_epochs = 8
    config.drop_last = True
    config.eval_every_epochs = 8
    config.eval_batch_size = 2000
    config.optim.name = "muon"
    config.optim.learning_rate = 0.24
    config.optim.momentum = 0.6
    config.optim.nesterov = True
    config.optim.rescale_kernels = True
    config.optim.schedule = "polynomial"
    # In the script, the product of learning rate and weight decay is 2e-6 * 2000 for all of SGD.
    sgd = "name='sgd', momentum=0.85"
    bias = f"{sgd}, learning_rate={0.053 * 2000}, weight_decay={2e-6 / 0.053}"
    head = f"{sgd}, learning_rate={0.67 * 2000}, weight_decay={2e-6 / 0.67}"
    config.optim.groups = (
        f"conv_stem/bias: {bias}, num_epochs=3; */bn*/bias: {bias}; dense/kernel: {head}"
    )
    config.label_smoothing = 0.2
    config.augment.ops = "alternating_flip|crop(2, mode='reflect')"
    config.augment.views = 6
    config.dtype = "auto"
    config.checkpoint.every_epochs = 8
    return config
