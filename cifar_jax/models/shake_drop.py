"""ShakeDrop: Yamada et al., "ShakeDrop Regularization for Deep Residual Learning" (2018).

In training, the branch of a residual block is multiplied by b + alpha - b alpha in the forward pass
and its gradient by b + beta - b beta in the backward pass. b is 0 with the probability `rate` and
otherwise 1, alpha is uniform in [-1, 1], and beta in [0, 1] (arXiv:1802.02375). A branch with b = 0
is thus scaled by alpha, which can be negative, and its gradient by the independent beta. In
evaluation, the factor is the expected one of the forward pass, 1 - rate.

All three numbers are drawn for each image. The paper compares this with one number per batch,
channel or element; owruby/shake-drop_pytorch draws b per batch, and alpha and beta per image.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from cifar_jax.models.layers import Dropout


class ShakeDrop(Dropout):
    """The layer described in the module's docstring: [B, ...] to the same shape and dtype.

    Args:
      rate: The probability that the branch of an image is shaken, in [0, 1).

    Raises:
      UserError: If the rate is outside [0, 1).
    """

    def __call__(self, x: jax.Array, *, rngs: nnx.Rngs | None = None) -> jax.Array:
        """Scales each image; in training, the `dropout` stream of rngs draws the factors."""
        if self.rate == 0:
            return x
        if self.deterministic:
            return (1 - self.rate) * x
        forward, backward = draw(rngs.dropout(), x.shape[0], self.rate)
        return scale(x, *(_broadcast(factors, x) for factors in (forward, backward)))


def draw(key: jax.Array, batch: int, rate: float) -> tuple[jax.Array, jax.Array]:
    """Draws the factors of the forward and of the backward pass, [batch] float32 each.

    Args:
      key: [] typed key.
      batch: Number of images.
      rate: Probability that b is 0.
    """
    choice, alpha, beta = jax.random.uniform(key, (3, batch))
    is_shaken = choice < rate
    return jnp.where(is_shaken, 2 * alpha - 1, 1), jnp.where(is_shaken, beta, 1)


@jax.custom_vjp
def scale(x: jax.Array, forward: jax.Array, backward: jax.Array) -> jax.Array:
    """Returns x * forward, whose gradient is defined as that of x * backward.

    Only reverse-mode differentiation is defined, and the factors have no gradient.
    """
    del backward
    return x * forward


def _scale_forward(x, forward, backward):
    return x * forward, (forward, backward)


def _scale_backward(factors, grad):
    forward, backward = factors
    return grad * backward, jnp.zeros_like(forward), jnp.zeros_like(backward)


scale.defvjp(_scale_forward, _scale_backward)


def _broadcast(factors: jax.Array, x: jax.Array) -> jax.Array:
    """Returns factors [B] in the shape [B, 1, ...] and the dtype of x [B, ...]."""
    return factors.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
