"""Evaluates the epoch that a run reports on the test set, and composes summary.json.

selection.py holds the rule that picks the epoch.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cifar_jax import run_state
from cifar_jax.experiment import Experiment
from cifar_jax.metrics import fetch
from cifar_jax.run import predictions
from cifar_jax.run.checkpoint import Checkpoints
from cifar_jax.run.writers import Row
from cifar_jax.run_state import RunState
from cifar_jax.runtime import distributed
from cifar_jax.step import TrainState


def evaluate_on_test(
    config: ConfigDict, exp: Experiment, run: RunState, checkpoints: Checkpoints, folder: Path
) -> dict[str, Any]:
    """Writes predictions.npz and returns the summary of a run that has trained to its end.

    Args:
      config: The run's config.
      exp: The parts of the run.
      run: The run after its last epoch.
      checkpoints: The run's checkpoints, including the best one.
      folder: The run's workdir.
    """
    row, state = _reported(config, exp, run, checkpoints)
    metrics, logits = exp.evaluate["test"](state)
    dataset = exp.dataset
    if distributed.is_main():
        path = folder / "predictions.npz"
        predictions.write(path, np.asarray(logits), dataset.test.labels, dataset.info.class_names)
    num_params = sum(x.size for x in jax.tree.leaves(state.params))
    return _summary(config, exp, run, row, fetch(metrics), num_params)


def _reported(
    config: ConfigDict, exp: Experiment, run: RunState, checkpoints: Checkpoints
) -> tuple[Row, TrainState]:
    """Returns the row of the epoch that the run reports, and a snapshot of its state."""
    row = exp.selection.best(run.rows) or run.rows[-1]
    if row["step"] == run.step:
        return row, exp.engine.snapshot(run.state)
    print(f"restored epoch {row['epoch']}, the best by {config.selected_by}")
    return row, run_state.restore_state(checkpoints, row["step"], run, exp)


def _summary(
    config: ConfigDict,
    exp: Experiment,
    run: RunState,
    row: Row,
    test: dict[str, float],
    num_params: int,
) -> dict[str, Any]:
    """Returns the fields of summary.json.

    Args:
      config: The run's config.
      exp: The parts of the run.
      run: The run after its last epoch.
      row: The row of the epoch that the run reports.
      test: The metrics of that epoch on the test set.
      num_params: The number of parameters.
    """
    train_seconds = sum(row["seconds"] for row in run.rows)
    # Only one call may have run here: the first of a process is not among the step times.
    step_times = run.clock.step_times or [
        1e3 * (run.clock.step_seconds or train_seconds / run.step)
    ]
    return {
        "experiment": config.experiment,
        "model": config.model.name,
        "num_params": num_params,
        "dataset": config.data.name,
        "label": config.data.label,
        "seed": config.seed,
        "epochs": len(run.rows),
        "steps": run.step,
        "batch_size": config.batch_size,
        "dtype": config.dtype,
        "parallel": config.parallel,
        "test_accuracy": test["accuracy"],
        "test_loss": test["loss"],
        "top5_accuracy": test["top5_accuracy"],
        "train_accuracy": row["train_accuracy"],
        "val_accuracy": row.get("val_accuracy"),
        "best_epoch": row["epoch"],
        "selected_on": config.selected_on,
        "selected_by": config.selected_by,
        "stopped_early": run.callbacks.has_stopped and len(run.rows) < config.num_epochs,
        "step_time_ms": {
            "median": float(np.median(step_times)),
            "p95": float(np.percentile(step_times, 95)),
        },
        "images_per_second": exp.engine.examples_per_epoch * len(run.rows) / train_seconds,
        "compile_seconds": exp.engine.compile_seconds,
        "train_seconds": train_seconds,
        "peak_memory_bytes": exp.engine.program_bytes,
    }
