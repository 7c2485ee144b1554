"""The PyTorch version of cifar_jax/models/shake_drop.py."""

import torch
from torch import nn


class Scale(torch.autograd.Function):
    """Multiplies by one factor in the forward pass and by another one in the backward pass."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, forward: torch.Tensor, backward: torch.Tensor):
        """Returns x * forward; the factors have a shape that broadcasts to that of x."""
        ctx.save_for_backward(backward)
        return x * forward

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        """Returns grad * backward, and no gradients of the factors."""
        return grad * ctx.saved_tensors[0], None, None


class ShakeDrop(nn.Module):
    """See cifar_jax/models/shake_drop.py; `p` is the rate."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [B, C, H, W] to the same shape."""
        if not self.training:
            return (1 - self.p) * x
        choice, alpha, beta = torch.rand((3, len(x), 1, 1, 1), dtype=x.dtype, device=x.device)
        kept = (choice >= self.p).to(x.dtype)
        alpha = 2 * alpha - 1
        return Scale.apply(x, kept + alpha - kept * alpha, kept + beta - kept * beta)
