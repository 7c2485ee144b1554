"""Loads a trained network from the workdir of its run."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from cifar_jax import experiment, run_state
from cifar_jax.data import DatasetInfo
from cifar_jax.engine import make_mesh, replicated
from cifar_jax.errors import UserError
from cifar_jax.metrics import Metrics
from cifar_jax.run import reported
from cifar_jax.run.checkpoint_meta import dataset_info
from cifar_jax.run.reported import Reported
from cifar_jax.step import TrainState


class Trained(NamedTuple):
    """A trained network on the first local device.

    Attributes:
      config: The config of the run. For an exported network, the fields that do not affect
        evaluation have their defaults.
      info: The classes, mean and std of the data set that it was trained on.
      parts: The functions that evaluate it.
      state: Its parameters and statistics. For an exported network, all other fields of the state
        are only shapes.
      step: The number of training steps.
      epoch: The number of epochs; None for a checkpoint within an epoch.
      accuracy: Accuracies of that epoch as fractions, such as {"train_accuracy": 0.52}.
      progress: For a run that is not complete, the state that was loaded, such as "epoch 2 of 9";
        "" for a complete run.
    """

    config: ConfigDict
    info: DatasetInfo
    parts: experiment.Parts
    state: TrainState
    step: int
    epoch: int | None
    accuracy: Mapping[str, float]
    progress: str = ""


def from_workdir(workdir: Path) -> Trained:
    """Returns the network of the epoch that a run reports.

    If the run is not complete, that is the best or latest epoch so far.

    Raises:
      UserError: If the folder holds no trained network.
    """
    return reported.read(workdir, partial(_restore, workdir))


def _restore(workdir: Path, found: Reported) -> Trained:
    config, step, rows = found.config, found.step, found.rows
    info = dataset_info(found.meta)
    if info is None:
        raise UserError(
            f"an older version of cifar_jax wrote the checkpoint in {workdir}: train again"
        )
    parts = experiment.make_parts(config, info)
    target = jax.eval_shape(lambda: run_state.arrays(parts.init(0), Metrics.empty()))
    saved, _ = found.checkpoints.restore(step, target, replicated(one_device()))
    row = next((row for row in rows if row["step"] == step), {})
    accuracy = {k: v for k, v in row.items() if k.endswith("_accuracy") and v is not None}
    is_complete = (workdir / "summary.json").exists()
    if is_complete:
        accuracy |= _test_accuracy(workdir)
    return Trained(
        config,
        info,
        parts,
        run_state.train_state(saved),
        step,
        row.get("epoch"),
        accuracy,
        "" if is_complete else _progress(config.num_epochs, rows, found.best, step),
    )


def _progress(
    num_epochs: int, rows: Sequence[Mapping[str, Any]], best: Mapping[str, Any] | None, step: int
) -> str:
    """Describes which state of an incomplete run a checkpoint holds.

    Args:
      num_epochs: The config field of that name.
      rows: The rows of the epochs so far.
      best: The row of the best epoch, if the run selects one.
      step: The step of the checkpoint.
    """
    if best is not None:
        return f"epoch {best['epoch']} of {num_epochs}, the best so far"
    if rows and rows[-1]["step"] == step:
        return f"epoch {rows[-1]['epoch']} of {num_epochs}"
    return f"step {step:,}, in epoch {len(rows) + 1} of {num_epochs}"


def _test_accuracy(workdir: Path) -> dict[str, float]:
    """Returns the test accuracy of a complete run, or {} if summary.json is damaged."""
    try:
        summary = json.loads((workdir / "summary.json").read_text())
        return {"test_accuracy": float(summary["test_accuracy"])}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def one_device() -> jax.sharding.Mesh:
    """Returns the mesh of the first local device, which holds trained networks."""
    return make_mesh(jax.local_devices()[:1])
