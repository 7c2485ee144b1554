"""Metrics as sums on the device, packed into one array and divided once on the host."""

import flax
import jax
import jax.numpy as jnp

from cifar_jax.selection import METRICS


@flax.struct.dataclass
class Metrics:
    """Mean loss, top-1 and top-5 accuracy over examples (fractions from 0 to 1), before division.

    Attributes:
      sums: [4] float32, over the examples: losses, top-1 hits, top-5 hits, ones. Counts are exact
        up to 2^24 examples.
    """

    sums: jax.Array

    @classmethod
    def empty(cls) -> "Metrics":
        """Returns the metrics of no examples."""
        return cls(jnp.zeros(len(METRICS) + 1, jnp.float32))

    def merge(self, other: "Metrics") -> "Metrics":
        """Returns the metrics of both sets of examples together."""
        return Metrics(self.sums + other.sums)


def num_ahead(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Counts the classes that rank before each label, [B] int32: a top-k hit has fewer than k.

    Of equal logits the lower class goes first, as in argmax: bfloat16 logits tie often, and
    counting every tie as a hit would flatter the network. All C are ahead of a NaN or an infinity.

    Args:
      logits: [B, C].
      labels: [B] integers.
    """
    classes, labels = jnp.arange(logits.shape[-1]), labels[:, None]
    # A masked sum instead of a gather: XLA computes it along with what else is reduced over C.
    own = jnp.sum(jnp.where(classes == labels, logits, 0), axis=-1, keepdims=True)
    ahead = (logits > own) | ((logits == own) & (classes < labels)) | ~jnp.isfinite(own)
    return jnp.sum(ahead, axis=-1)


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
    ahead = num_ahead(logits, labels)
    values = jnp.stack([losses, ahead < 1, ahead < 5, jnp.ones_like(losses)])
    sums = jnp.sum(jnp.where(weights > 0, values, 0), axis=1)
    return Metrics(sums if axis_name is None else jax.lax.psum(sums, axis_name))


def fetch(metrics: Metrics) -> dict[str, float]:
    """Waits for the sums and returns {loss, accuracy, top5_accuracy}; NaN of no examples.

    Divides on the host: a division on the device would queue behind whatever runs there next.
    """
    *totals, count = jax.device_get(metrics.sums).tolist()
    return {
        name: total / count if count else float("nan")
        for name, total in zip(METRICS, totals, strict=True)
    }


def to_checkpoint(metrics: Metrics) -> dict[str, dict[str, jax.Array]]:
    """Returns the tree that checkpoints hold: {name: {"total": float32, "count": int32}}.

    The layout of a clu.metrics.Collection, as in workdirs from before the sums were packed.
    """
    *totals, count = metrics.sums
    count = count.astype(jnp.int32)
    tree = {
        name: {"total": total, "count": count} for name, total in zip(METRICS, totals, strict=True)
    }
    return tree | {"_reduction_counter": {"value": jnp.ones_like(count)}}


def from_checkpoint(tree: dict[str, dict[str, jax.Array]]) -> Metrics:
    """Returns what `to_checkpoint` was given."""
    totals = [tree[name]["total"] for name in METRICS]
    return Metrics(jnp.stack([*totals, tree["loss"]["count"].astype(jnp.float32)]))
