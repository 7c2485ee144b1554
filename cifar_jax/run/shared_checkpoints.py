"""The checkpoints of a run of several processes, where only process 0 reads and writes files.

All arrays of a run are replicated, so one process can write all of them, and its workdir need not
be on a file system that all hosts share. The other processes receive what it reads.
"""

from collections.abc import Callable
from typing import Any

import jax
import orbax.checkpoint as ocp

from cifar_jax.run.checkpoint import Checkpoints
from cifar_jax.runtime import distributed


class SharedCheckpoints:
    """Stands in for Checkpoints. All processes call the same methods at the same time."""

    def __init__(self, own: Checkpoints | None):
        """Wraps the checkpoints of process 0; None in the others."""
        self._own = own
        if own:
            _write_whole_arrays()

    @property
    def latest_step(self) -> int | None:
        """See Checkpoints."""
        return distributed.on_main(lambda: self._own.latest_step)

    def save(self, step: int, state: Any, meta: dict, score: float | None = None) -> None:
        """See Checkpoints."""
        if self._own:
            self._own.save(step, distributed.local(state), meta, score)

    def restore(self, step: int, target: Any, sharding: jax.sharding.Sharding) -> tuple[Any, dict]:
        """See CheckpointReader."""
        saved = self._own and self._own.restore(step, distributed.local(target), _one_device())
        return self._share(saved, target, sharding)

    def restore_latest(
        self, target: Any, sharding: jax.sharding.Sharding, is_valid: Callable[[dict], bool]
    ) -> tuple[int, Any, dict] | None:
        """See Checkpoints."""
        latest = self._own and self._own.restore_latest(
            distributed.local(target), _one_device(), is_valid
        )
        step = distributed.on_main(lambda: latest and latest[0])
        if step is None:
            return None
        return step, *self._share(latest and latest[1:], target, sharding)

    def _share(
        self, saved: tuple[Any, dict] | None, target: Any, sharding: jax.sharding.Sharding
    ) -> tuple[Any, dict]:
        """Gives the arrays and `meta` of process 0 to all processes."""
        arrays = saved[0] if saved else distributed.local(target)
        arrays = distributed.put(distributed.arrays_from_main(arrays), sharding)
        return arrays, distributed.on_main(lambda: saved[1])


def _one_device() -> jax.sharding.Sharding:
    return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])


def _write_whole_arrays() -> None:
    """Makes Orbax write whole arrays. By default, each process writes part of every array.

    The arrays are NumPy arrays, except for the key; see checkpoint.py.
    """
    handler = ocp.type_handlers.get_type_handler(jax.Array)
    # Orbax keeps the type of PRNG keys in this store, which a new handler lacks by default.
    store = handler._array_metadata_store
    whole = ocp.type_handlers.ArrayHandler(use_replica_parallel=False, array_metadata_store=store)
    ocp.type_handlers.register_type_handler(jax.Array, whole, override=True)
