"""Counts the FLOPs of a training step."""

import traceback

import jax
import numpy as np
from ml_collections import ConfigDict

from cifar_jax import data, experiment
from cifar_jax.engine import gather


def count_flops(settings: ConfigDict, dataset: data.Dataset) -> float | None:
    """Returns the FLOPs of one training step without augmentation, or None if XLA reports none.

    XLA counts them in the program before it is compiled. On every machine, the program is lowered
    for CUDA, so that its convolutions are those of `jax.lax`, in which padding does not count and
    no algorithm reduces the number of multiplications. The CPU backend counts nevertheless, because
    CUDA's has no cost analysis.
    """
    settings = settings.copy_and_resolve_references()
    settings.augment.ops = settings.augment.mix = ""
    parts = experiment.make_parts(settings, dataset.info)
    order = np.arange(settings.batch_size, dtype=np.int32)[None]
    try:
        with jax.default_device(jax.local_devices(backend="cpu")[0]):
            state = jax.eval_shape(parts.init, np.uint32(0))
            batch = jax.eval_shape(lambda: gather(*dataset.train, order, 0, settings.batch_size))
            step = jax.jit(parts.make_train_step(None)).trace(state, batch, np.float32(0))
            program = step.lower(lowering_platforms=("cuda",))
            return (program.cost_analysis() or {}).get("flops")
    except Exception:  # such as no CPU backend next to the accelerator; the times still count
        traceback.print_exc()
        return None
