"""Layers that the PyTorch networks need and PyTorch lacks."""

import torch
from torch import nn
from torch.nn import functional as F

# The defaults of Keras. Its momentum of 0.99 corresponds to 0.01 in PyTorch.
KERAS_NORM = dict(eps=1e-3, momentum=0.01)


class FlatLinear(nn.Linear):
    """A dense layer after `flatten`.

    PyTorch orders its inputs by channel and cifar_jax orders them by pixel, so `to_state_dict` has
    to permute the weights.

    Args:
      pixels: Height times width of the array before flattening.
      channels: The number of channels of the array before flattening.
      units: The number of outputs.
    """

    def __init__(self, pixels: int, channels: int, units: int):
        super().__init__(pixels * channels, units)
        self.pixels = pixels


class SameConv2d(nn.Conv2d):
    """A convolution with Keras's "same" padding, with any odd pixel at the bottom and right."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, I, H, W] to [B, O, ceil(H / stride), ceil(W / stride)]."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        sides = []
        for size in (x.shape[3], x.shape[2]):  # F.pad starts with the last dimension
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            sides += [total // 2, total - total // 2]
        return super().forward(F.pad(x, sides))


class BiasNorm2d(nn.BatchNorm2d):
    """Batch normalization with a learned bias and no scale; nn.BatchNorm2d has both or neither."""

    def __init__(self, num_features: int, **options):
        super().__init__(num_features, **options)
        self.register_parameter("weight", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalizes x [B, C, H, W] over all axes except C."""
        return F.batch_norm(
            x, self.running_mean, self.running_var,
            torch.ones_like(self.bias),  # without a scale, PyTorch would not call cuDNN
            self.bias, self.training, self.momentum, self.eps,
        )  # fmt: skip


class StochasticDepth(nn.Dropout):
    """See cifar_jax/models/stochastic_depth.py; `p` is the probability of losing the branch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, ...] to the same shape, with one random number per image."""
        if not self.training or not self.p:
            return x
        keep = 1 - self.p
        return x * (x.new_empty(len(x), *(1,) * (x.ndim - 1)).bernoulli_(keep) / keep)
