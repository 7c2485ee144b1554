"""Metrics, accumulated on the device as sums in one array and divided on the host."""

import flax
import jax
import jax.numpy as jnp

from cifar_jax.selection import METRICS


@flax.struct.dataclass
class Metrics:
    """The sums from which `fetch` computes the mean loss and the top-1 and top-5 accuracy.

    Attributes:
      sums: [4] float32, the sum of the losses and the counts of top-1 hits, top-5 hits and
        examples. The counts are exact up to 2^24 examples.
    """

    sums: jax.Array

    @classmethod
    def empty(cls) -> "Metrics":
        """Returns empty metrics: all sums are 0."""
        return cls(jnp.zeros(len(METRICS) + 1, jnp.float32))

    def merge(self, other: "Metrics") -> "Metrics":
        """Returns the metrics of both sets of examples together."""
        return Metrics(self.sums + other.sums)


def num_ahead(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Counts the classes that rank before each label, [B] int32: a top-k hit has fewer than k.

    Among equal logits, the lower class ranks first, as in argmax: counting every tie as a hit would
    overstate the accuracy. A label whose logit is NaN or infinite ranks after all C classes.

    Args:
      logits: [B, C].
      labels: [B] integers.
    """
    classes, labels = jnp.arange(logits.shape[-1]), labels[:, None]
    # A masked sum instead of a gather: XLA fuses it with the other reductions over C.
    label_logit = jnp.sum(jnp.where(classes == labels, logits, 0), axis=-1, keepdims=True)
    ahead = (
        (logits > label_logit)
        | ((logits == label_logit) & (classes < labels))
        | ~jnp.isfinite(label_logit)
    )
    return jnp.sum(ahead, axis=-1)


def measure(
    logits: jax.Array,
    labels: jax.Array,
    losses: jax.Array,
    weights: jax.Array,
    axis_name: str | None = None,
) -> Metrics:
    """Returns the metrics of one batch; under pmap, those of all replicas' batches.

    Args:
      logits: [B, C].
      labels: [B] integers.
      losses: [B] float32.
      weights: [B], 1 for an example that counts and 0 for padding.
      axis_name: The axis name of pmap, or None under jit.
    """
    ahead = num_ahead(logits, labels)
    values = jnp.stack([losses, ahead < 1, ahead < 5, jnp.ones_like(losses)])
    sums = jnp.sum(jnp.where(weights > 0, values, 0), axis=1)
    return Metrics(sums if axis_name is None else jax.lax.psum(sums, axis_name))


def fetch(metrics: Metrics) -> dict[str, float]:
    """Waits for the sums and returns the mean of each metric; NaN if there are no examples.

    Divides on the host: a division on the device would wait for the call queued before it.
    """
    *totals, count = jax.device_get(metrics.sums).tolist()
    return {
        name: total / count if count else float("nan")
        for name, total in zip(METRICS, totals, strict=True)
    }


def to_checkpoint(metrics: Metrics) -> dict[str, dict[str, jax.Array]]:
    """Returns the tree that checkpoints hold: {name: {"total": float32, "count": int32}}.

    This is the layout of a clu.metrics.Collection, which earlier versions saved.
    """
    *totals, count = metrics.sums
    count = count.astype(jnp.int32)
    tree = {
        name: {"total": total, "count": count} for name, total in zip(METRICS, totals, strict=True)
    }
    return tree | {"_reduction_counter": {"value": jnp.ones_like(count)}}


def from_checkpoint(tree: dict[str, dict[str, jax.Array]]) -> Metrics:
    """Returns the metrics that a checkpoint holds; the inverse of `to_checkpoint`."""
    totals = [tree[name]["total"] for name in METRICS]
    return Metrics(jnp.stack([*totals, tree["loss"]["count"].astype(jnp.float32)]))
