"""The random keys that networks draw while they are traced."""

import jax
import numpy as np
from flax import nnx


def make_rngs(**keys: jax.Array | int) -> nnx.Rngs:
    """Returns nnx.Rngs(**keys) with streams that are faster to trace; they draw the same keys.

    Args:
      **keys: For each stream, "params" or "dropout", a typed key [] or a seed.
    """
    rngs = nnx.Rngs(**keys)
    for name in keys:
        setattr(rngs, name, _Stream(rngs[name].key[...], tag=name))
    return rngs


class _Stream(nnx.RngStream):
    """A stream that counts its keys in Python.

    NNX counts them in a traced array. Each time it stores the count, it asks the tracer for a
    sharding that tracers do not have, and JAX walks through everything traced so far to format an
    error message. Tracing the initialization of resnet50 would take five times as long.
    """

    def __init__(self, key: jax.Array, *, tag: str):
        super().__init__(key, tag=tag)
        self._num_drawn = 0

    def __call__(self) -> jax.Array:
        key = jax.random.fold_in(self.key[...], np.uint32(self._num_drawn))
        self._num_drawn += 1
        return key
