"""Reads trained weights from the workdir of a run of this suite."""

from functools import partial
from pathlib import Path

import jax

from cifar_jax.run import reported
from cifar_jax.run.reported import Reported
from cifar_jax.transfer.safetensors_file import FORMAT
from cifar_jax.transfer.weight_file import Weights


def read(workdir: Path) -> Weights:
    """Returns the weights of the epoch that a run reports.

    If the run is not complete, that is the best or latest epoch so far.

    Raises:
      UserError: If the folder holds no run or no checkpoint, or its files are damaged.
    """
    return reported.read(workdir, partial(_weights, workdir))


def _weights(workdir: Path, found: Reported) -> Weights:
    trees = found.checkpoints.restore_arrays(found.step, ("params", "batch_stats", "average"))
    trees = trees.pop("average", trees)  # see TrainState.evaluated
    leaves = jax.tree_util.tree_leaves_with_path(trees)
    tensors = {
        jax.tree_util.keystr(path[1:], simple=True, separator="."): array for path, array in leaves
    }
    metadata = {
        "model": found.config.model.to_json(),
        "normalize": str(found.config.augment.normalize),
    }
    return Weights(f"{workdir} (step {found.step:,})", FORMAT, tensors, metadata)
