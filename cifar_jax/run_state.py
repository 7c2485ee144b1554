"""Saves the state of a run in its checkpoints, and resumes it from them.

run/checkpoint.py writes and reads the files.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax

from cifar_jax.clock import Clock
from cifar_jax.engine import PmapEngine
from cifar_jax.errors import UserError
from cifar_jax.experiment import Experiment
from cifar_jax.loop import Diverged
from cifar_jax.metrics import Metrics, from_checkpoint, to_checkpoint
from cifar_jax.optim.callbacks import Callbacks
from cifar_jax.run.checkpoint import Checkpoints
from cifar_jax.run.checkpoint_meta import is_valid
from cifar_jax.run.writers import Row
from cifar_jax.step import TrainState, all_finite


@dataclasses.dataclass
class RunState:
    """The part of a run that changes while it trains, and that a checkpoint holds.

    Attributes:
      state: The engine's state.
      metrics: The training metrics of the epoch so far, as the engine holds them.
      step: The number of steps done.
      rows: The rows of metrics.csv, one for each epoch done.
      clock: The clock that times the calls to the device.
      callbacks: The callbacks that decide between epochs.
      environments: What the run was trained on, one after the other; see runtime/environment.py.
      num_devices: The number of devices that saved the checkpoint that was restored, if known.
    """

    state: TrainState
    metrics: Metrics
    step: int
    rows: list[Row]
    clock: Clock
    callbacks: Callbacks
    environments: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    num_devices: int | None = None

    def continue_on(self, environment: dict[str, Any]) -> None:
        """Notes what the run is trained on from now on.

        Args:
          environment: The device, versions and commit. If they differ from before, the step times
            so far are dropped, because they would be mixed with others.
        """
        if self.environments[-1:] != [environment]:
            self.environments.append(environment)
            self.clock.step_times.clear()


def start(exp: Experiment, steps_per_call: int, *, will_resume: bool = False) -> RunState:
    """Returns a run at step 0.

    Args:
      exp: The parts of the run.
      steps_per_call: The config field of that name.
      will_resume: Whether a checkpoint will replace the state, so that nothing has to be loaded.
    """
    return RunState(
        state=exp.engine.init(load=not will_resume),
        metrics=exp.engine.no_metrics(),
        step=0,
        rows=[],
        clock=Clock(steps_per_call),
        callbacks=exp.callbacks,
    )


_is_finite = jax.jit(all_finite)


def save(checkpoints: Checkpoints, run: RunState, exp: Experiment, score: float | None) -> None:
    """Saves a run.

    Args:
      checkpoints: The checkpoints in the run's workdir.
      run: The run.
      exp: The parts of the run.
      score: See Checkpoints.save.

    Raises:
      Diverged: If the state is not finite, so that it does not replace an older, finite one.
    """
    arrays = _arrays_of(run, exp)
    if not _is_finite(arrays["state"]):
        raise Diverged(f"a parameter became NaN or infinite by step {run.step}")
    meta = {
        "rows": [*run.rows],
        "seconds": run.clock.seconds,
        "step_times": [*run.clock.step_times],
        "callbacks": run.callbacks.state_dict(),
        "devices": exp.engine.mesh.size,
        "environments": [*run.environments],
        # For predict.py, which does not load the data set.
        "classes": [*exp.dataset.info.class_names],
        "mean": exp.dataset.info.mean.tolist(),
        "std": exp.dataset.info.std.tolist(),
    }
    checkpoints.save(run.step, arrays, meta, score)


def resume(checkpoints: Checkpoints, run: RunState, exp: Experiment) -> bool:
    """Restores the latest checkpoint into a run that is at step 0.

    Returns:
      Whether there is a checkpoint.

    Raises:
      UserError: If there are checkpoints, but none can be restored.
    """
    latest = checkpoints.restore_latest(_arrays_of(run, exp), exp.engine.replicated, is_valid)
    if latest is None:
        return False
    run.step, saved, meta = latest
    run.state = exp.engine.place(train_state(saved))
    run.metrics = exp.engine.place(from_checkpoint(saved["metrics"]))
    run.rows = meta["rows"]
    run.clock.seconds = meta["seconds"]
    run.clock.step_times.extend(meta["step_times"])
    run.callbacks.load_state_dict(meta["callbacks"])
    run.environments = meta.get("environments", [])
    run.num_devices = meta.get("devices")  # older checkpoints do not say it
    return True


def check_devices(run: RunState, exp: Experiment) -> None:
    """Checks that a restored run can be trained further on these devices.

    Raises:
      UserError: If it uses pmap and was saved on another number of devices.
    """
    now = exp.engine.mesh.size
    if isinstance(exp.engine, PmapEngine) and run.num_devices not in (None, now):
        raise UserError(
            "with parallel='pmap', the number of devices is part of the recipe: this run was "
            f"saved on {run.num_devices} and cannot continue on {now}"
        )


def restore_state(
    checkpoints: Checkpoints, step: int, run: RunState, exp: Experiment
) -> TrainState:
    """Returns a snapshot of the state that a run saved at an earlier step."""
    saved, _ = checkpoints.restore(step, _arrays_of(run, exp), exp.engine.replicated)
    return train_state(saved)


def arrays(state: TrainState, metrics: Metrics) -> dict[str, Any]:
    """Returns the tree of arrays that a checkpoint holds, from snapshots.

    A field of the state that is None is left out, so that runs without it are compatible with the
    checkpoints of versions that did not have the field.
    """
    fields = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    fields = {name: value for name, value in fields.items() if value is not None}
    return {"state": fields, "metrics": to_checkpoint(metrics)}


def train_state(saved: Mapping[str, Any]) -> TrainState:
    """Returns the state in the tree of a checkpoint; the inverse of `arrays`."""
    return TrainState(**saved["state"])


def _arrays_of(run: RunState, exp: Experiment) -> dict[str, Any]:
    return arrays(exp.engine.snapshot(run.state), exp.engine.snapshot(run.metrics))
