"""Losses of one example each; the step weighs and averages them."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy of each example, computed in float32.

    With smoothing e the target is 1 - e + e / C for the label and e / C elsewhere, as in Keras
    and PyTorch.

    Args:
      logits: [B, C], any float dtype.
      labels: [B] integers in [0, C).
      label_smoothing: e, in [0, 1).

    Returns:
      [B] float32.
    """
    logits = logits.astype(jnp.float32)
    hard = optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)
    if label_smoothing == 0:
        return hard
    uniform = -jnp.mean(jax.nn.log_softmax(logits), axis=-1)
    return (1.0 - label_smoothing) * hard + label_smoothing * uniform
