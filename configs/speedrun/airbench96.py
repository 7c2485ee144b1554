"""airbench96 on CIFAR-10: 96% in 37 epochs, KellerJordan/cifar10-airbench.

    python -m cifar_jax.main --config configs/speedrun/airbench96.py

The script legacy/airbench96.py reports a mean of 96.03% over 400 runs, in 34.7 s on an A100 (SXM,
80 GB, PyTorch 2.1.2). Its clock covers whitening, augmentation, training and the last evaluation,
which averages six views of each image, but not the upload of the data. Compared with airbench95,
the groups are residual and wider, images are shifted by up to four pixels, a square of 12 x 12
pixels is erased from each, and the learning rate rises faster and falls to 0. The recipe has not
been run in full yet.

The script's learning rate of 9 and weight decay of 0.012 are per 1,024 examples. It divides both by
1,024 and by 1 + 1 / (1 - 0.85), the factor by which momentum lengthens the steps, and passes the
weight decay to PyTorch divided by the learning rate. Its loss is the sum over the batch of 1,024;
here it is the mean. So the learning rate here is 9 / (1 + 1 / (1 - 0.85)), and the weight decay,
which is added to the gradient, 0.012 / 9.

Deviations: bfloat16 and float32 instead of float16; the same half of the images starts mirrored
with every seed; erased pixels have the mean color rounded to whole pixel values; BatchNorm keeps
the biased running variance.
"""

from cifar_jax.config import base


def get_config():
    config = base.get_config()
    config.data.name = "cifar10"
    config.model.name = "airbench"
    config.model.widths = (128, 384, 512)
    config.model.depth = 3
    config.model.bn_momentum = 0.9
    config.model.logit_scale = 1 / 9
    config.model.init = "sgd"
    config.batch_size = 1024
    config.num_epochs = 37
    config.drop_last = True
    config.eval_every_epochs = 37
    config.eval_batch_size = 2000
    learning_rate = 9 / (1 + 1 / (1 - 0.85))
    weight_decay = 0.012 / 9
    config.optim.name = "sgd"
    config.optim.learning_rate = learning_rate
    config.optim.momentum = 0.85
    config.optim.nesterov = True
    config.optim.weight_decay = weight_decay
    config.optim.schedule = "linear_one_cycle"
    config.optim.base_learning_rate = 0.2 * learning_rate
    config.optim.final_learning_rate = 0.0
    # 10% of the 37 * 48 steps, rounded down.
    config.optim.rise = 177 / 1776
    # The stem's bias stops during the rise, which equals that of "triangular".
    stem = f"schedule='triangular', half_cycle_epochs={177 / 48}, num_epochs=3"
    biases = f"learning_rate={64 * learning_rate}, weight_decay={weight_decay / 64}"
    config.optim.groups = f"conv_stem/bias: {stem}; */bn*/bias: {biases}"
    config.lookahead.every = 5
    config.lookahead.decay = 0.95
    config.lookahead.power = 3.0
    config.label_smoothing = 0.2
    # Unlike cutout's, the squares of random_erasing lie inside the image: 12 x 12 of 1,024 pixels.
    config.augment.ops = (
        "alternating_flip|crop(4, mode='reflect')|"
        "random_erasing(1.0, (0.140625, 0.140625), (1.0, 1.0), (125, 123, 114))"
    )
    config.augment.views = 6
    config.dtype = "auto"
    config.checkpoint.every_epochs = 37
    return config
