"""Metrics as sums and counts on the device, divided once on the host."""

from functools import partial

import flax
import jax
import jax.numpy as jnp
from clu import metrics


def in_top_k(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Whether each label is among the k greatest logits; [B] bool.

    Of equal logits the lower class goes first, as in argmax: bfloat16 logits tie often, and
    counting every tie as a hit would flatter the network.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    classes = jnp.arange(logits.shape[-1])
    ahead = (logits > own) | ((logits == own) & (classes < labels[:, None]))
    return (jnp.sum(ahead, axis=-1) < k) & jnp.isfinite(own[:, 0])


@flax.struct.dataclass
class Metrics(metrics.Collection):
    """Mean loss, top-1 and top-5 accuracy over examples (fractions from 0 to 1)."""

    loss: metrics.Average.from_output("loss")
    accuracy: metrics.Average.from_output("top1")
    top5_accuracy: metrics.Average.from_output("top5")


def measure(
    logits: jax.Array,
    labels: jax.Array,
    losses: jax.Array,
    weights: jax.Array,
    axis_name: str | None = None,
) -> Metrics:
    """Returns the metrics of one batch, of all replicas' batches inside pmap.

    Args:
      logits: [B, C].
      labels: [B] integers.
      losses: [B] float32.
      weights: [B], 1 for an example that counts and 0 for filling.
      axis_name: pmap's, or None outside it.
    """
    if axis_name is None:
        create = Metrics.single_from_model_output
    else:
        create = partial(Metrics.gather_from_model_output, axis_name=axis_name)
    return create(
        loss=losses,
        top1=in_top_k(logits, labels, 1),
        top5=in_top_k(logits, labels, 5),
        mask=weights > 0,
    )


def fetch(collection: Metrics) -> dict[str, float]:
    """Waits for the collection's sums and returns {loss, accuracy, top5_accuracy}.

    Divides on the host: a division on the device would queue behind whatever runs there next.
    """
    return {name: float(value) for name, value in jax.device_get(collection).compute().items()}
