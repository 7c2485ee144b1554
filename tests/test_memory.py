"""Checks that memory does not grow from epoch to epoch."""

import collections
import gc
import tracemalloc
from typing import NamedTuple

import jax
import numpy as np
import pytest
import tiny

from cifar_jax.trainer import Trainer

NUM_EPOCHS = 2  # between two measurements
BATCH_BYTES = 32 * 32 * 32 * 3


class Usage(NamedTuple):
    """What a process holds at the end of an epoch, apart from the space that the C library keeps.

    Attributes:
      arrays: The number of arrays on the devices.
      array_bytes: The total size of these arrays.
      numpy_bytes: The size of the NumPy arrays made since tracemalloc started.
      objects: {class of cifar_jax: the number of its objects made since gc.freeze}.
    """

    arrays: int
    array_bytes: int
    numpy_bytes: int
    objects: collections.Counter


def measure() -> Usage:
    gc.collect()
    # Only NumPy's memory: at every save, TensorStore's metrics leak about 40 kB of lists.
    is_numpy = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    traces = tracemalloc.take_snapshot().filter_traces([is_numpy]).traces
    types = collections.Counter(map(type, gc.get_objects()))
    ours = {t: n for t, n in types.items() if str(t.__module__).startswith("cifar_jax")}
    live = jax.live_arrays()
    return Usage(
        arrays=len(live),
        array_bytes=sum(array.nbytes for array in live),
        numpy_bytes=sum(trace.size for trace in traces),
        objects=collections.Counter(ours),
    )


def growing(before: Usage, after: Usage) -> list[str]:
    """Returns the fields that grew by an image batch, or by an array or object, per epoch."""
    limit = before._replace(numpy_bytes=before.numpy_bytes + NUM_EPOCHS * BATCH_BYTES // 2)
    return [
        name
        for name in Usage._fields
        if not getattr(after, name) <= getattr(limit, name)  # Counters are partially ordered
    ]


@pytest.mark.slow
def test_memory_does_not_grow_from_epoch_to_epoch(tmp_path, monkeypatch):
    kept, usages = [], []
    train_epoch = Trainer._train_epoch

    def leak(trainer):
        kept.append(trainer._exp.dataset.train.images[:32].copy())
        kept.append(trainer._exp.engine.no_metrics())

    def train_and_measure(self, writers):
        train_epoch(self, writers)
        epoch = len(self.run.rows)
        if epoch > 3 * NUM_EPOCHS:
            leak(self)
        self._checkpoints.wait()  # it holds a copy of the state while it is written
        if epoch == NUM_EPOCHS:  # caches are full; the next epochs replace what they hold
            gc.freeze()  # leaves out the objects of libraries and of other tests
            tracemalloc.start()
        elif epoch % NUM_EPOCHS == 0:
            usages.append(measure())

    monkeypatch.setattr(Trainer, "_train_epoch", train_and_measure)
    try:
        tiny.train(tiny.make_config(num_epochs=4 * NUM_EPOCHS), tmp_path)
    finally:
        tracemalloc.stop()
        gc.unfreeze()
    before, after, with_leak = usages
    assert not growing(before, after), usages
    assert growing(after, with_leak) == list(Usage._fields)
