"""Stochastic depth: Huang et al., "Deep Networks with Stochastic Depth" (2016, arXiv:1603.09382).

In training, each image skips the residual branch of a block with the block's own probability, which
grows linearly with depth. As in the networks that use it today, the kept branches are divided by
the probability of keeping them, so that evaluation needs no factor; the paper multiplies the
branches in evaluation instead. The paper draws one number per block for the whole batch.
"""

from cifar_jax.models.layers import Dropout


class StochasticDepth(Dropout):
    """Sets a residual branch to 0 for random images of the batch; the identity in evaluation.

    Args:
      rate: The probability with which an image loses the branch, in [0, 1). The branches of the
        other images are divided by 1 - rate.
      num_dims: Number of dimensions of the branch, the batch included: 4 for [B, H, W, C].

    Raises:
      UserError: If the rate is outside [0, 1).
    """

    def __init__(self, rate: float, num_dims: int = 4):
        super().__init__(rate)
        self.broadcast_dims = tuple(range(1, num_dims))


def linear_rates(max_rate: float, num_blocks: int) -> tuple[float, ...]:
    """Returns the rate of each block: 0 for the first one, `max_rate` for the last one."""
    return tuple(max_rate * i / max(num_blocks - 1, 1) for i in range(num_blocks))
