"""The training loop: from a config and its data to summary.json."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from clu import parameter_overview
from ml_collections import ConfigDict

from cifar_jax import experiment
from cifar_jax.experiment import Experiment
from cifar_jax.loop import WHAT_TO_DO, Diverged, run_until
from cifar_jax.metrics import Metrics, fetch, from_checkpoint, to_checkpoint
from cifar_jax.optim.callbacks import Callbacks
from cifar_jax.run import summary, trackers, workdir
from cifar_jax.run.checkpoint import Checkpoints, open_checkpoints
from cifar_jax.run.clock import Clock
from cifar_jax.run.writers import ConsoleWriter, CsvWriter, Row, TensorBoardWriter, Writer
from cifar_jax.runtime.environment import environment
from cifar_jax.runtime.signals import Preempted, StopRequest, catch_signals
from cifar_jax.runtime.startup import Startup
from cifar_jax.selection import METRICS
from cifar_jax.step import TrainState, all_finite


@dataclasses.dataclass
class Run:
    """The part of a run that changes while it trains, restored from its checkpoint.

    Attributes:
      state: The engine's state.
      metrics: The training metrics of the epoch so far, as the engine holds them.
      step: The number of steps done.
      rows: The rows of metrics.csv, one for each epoch done.
      clock: Times the calls to the device.
      callbacks: Decide between epochs.
    """

    state: TrainState
    metrics: Metrics
    step: int
    rows: list[Row]
    clock: Clock
    callbacks: Callbacks


def train(
    config: ConfigDict,
    folder: str | Path,
    deadline: float = math.inf,
    startup: Startup | None = None,
) -> dict[str, Any]:
    """Trains, evaluates and writes everything into a workdir; resumes what lies there.

    Args:
      config: with the fields of cifar_jax/config/base.py.
      folder: the workdir; made if need be.
      deadline: by time.monotonic(), when to save and leave.
      startup: a stopwatch that runs since the command was given; since this call without one.

    Returns:
      The content of summary.json.

    Raises:
      UserError: for a wrong config, missing data, the workdir of another run, or (Diverged) a
        loss that is no longer finite.
      Preempted: after SIGTERM, SIGINT or the deadline, once the state is saved.
    """
    startup = startup or Startup()
    startup.mark("imports")
    folder = Path(folder).resolve()
    experiment.check(config)
    config = experiment.resolved(config)
    with workdir.locked(folder):
        complete = workdir.check(config, folder)
        if complete is not None:
            print(f"{config.experiment} is complete:\n{summary.table(complete, folder)}")
            return complete
        made_on = environment()  # before training: the checkout may change meanwhile
        startup.mark("checks")
        dataset = experiment.load_data(config)
        startup.mark("data")
        exp = experiment.create(config, dataset)
        tracing = exp.engine.trace_seconds
        compilation = exp.engine.compile_seconds - tracing
        startup.mark("network", tracing=tracing, compilation=compilation)
        workdir.claim(config, folder)
        # A signal that arrives while trackers record the end changes nothing anymore.
        with catch_signals(deadline) as stop, contextlib.ExitStack() as stack:
            with open_checkpoints(folder / "checkpoints") as checkpoints:
                trainer = Trainer(config, exp, checkpoints, stop, startup)
                rows = trainer.run.rows
                tracking = stack.enter_context(trackers.opened(config.trackers, folder, rows))
                startup.mark("state")
                trainer.train(folder, tracking)
                result = trainer.evaluate_on_test(folder) | made_on
                result["startup_seconds"] = startup.seconds
            # Written last: this file makes the run complete.
            summary.write_json(folder / "summary.json", result)
            for tracker in tracking:
                tracker.finish(result)
    print(summary.table(result, folder))
    return result


class Trainer:
    """The training loop of one run, between its workdir, its engine and its callbacks.

    Attributes:
      run: The part of the run that changes.
    """

    def __init__(
        self,
        config: ConfigDict,
        exp: Experiment,
        checkpoints: Checkpoints,
        stop: StopRequest,
        startup: Startup,
    ):
        """Starts at step 0, or where the latest checkpoint is.

        Args:
          config: The run's config, checked and resolved.
          exp: Its parts.
          checkpoints: Those of its workdir.
          stop: Set by a signal or a deadline.
          startup: Finished by the first call.
        """
        self._config, self._exp, self._checkpoints = config, exp, checkpoints
        self._stop, self._startup = stop, startup
        self._is_finite = jax.jit(all_finite)
        engine = exp.engine
        self.run = Run(
            engine.init(), engine.no_metrics(), 0, [], Clock(config.steps_per_call),
            experiment.make_callbacks(config),
        )  # fmt: skip
        params = engine.snapshot(self.run.state).params
        print(parameter_overview.get_parameter_overview(params, include_stats=False))
        if checkpoints.latest_step is not None:
            self._resume(checkpoints.latest_step)
        self._saved_step, self._saved_at = self.run.step, time.monotonic()

    @property
    def _total_steps(self) -> int:
        return self._config.num_epochs * self._exp.engine.steps_per_epoch

    def _resume(self, step: int) -> None:
        config, exp, run = self._config, self._exp, self.run
        saved, meta = self._checkpoints.restore(step, self._arrays(), exp.engine.replicated)
        run.callbacks.load_state_dict(meta["callbacks"])
        is_picked = config.selected_on in ("val", "test")
        for row in meta["rows"]:
            # A shorter run also evaluated its last epoch. If epochs are picked, that evaluation
            # stays: its checkpoint may be the one that was kept.
            if not (is_picked or run.callbacks.has_stopped or self._is_due(row["epoch"])):
                row.update({name: None for name in row if name.startswith(f"{exp.curve}_")})
        print(f"resumed at step {step:,} of {self._total_steps:,}")
        run.state = exp.engine.place(saved["state"])
        run.metrics = exp.engine.place(from_checkpoint(saved["metrics"]))
        run.step, run.rows = step, meta["rows"]
        run.clock = Clock(config.steps_per_call, meta["seconds"], meta["step_times"])

    def _arrays(self) -> dict[str, Any]:
        """Returns the arrays of a checkpoint, on the devices."""
        snapshot = self._exp.engine.snapshot
        metrics = to_checkpoint(snapshot(self.run.metrics))
        return {"state": snapshot(self.run.state), "metrics": metrics}

    def train(self, folder: Path, tracking: Sequence[Writer]) -> None:
        """Trains to the last epoch.

        Args:
          folder: The workdir, for metrics.csv and TensorBoard's events.
          tracking: Further writers, which the caller closes.

        Raises:
          Preempted: If `stop` asks for it, once the state is saved.
          Diverged: If the loss becomes NaN or infinite.
        """
        run, engine = self.run, self._exp.engine
        own = [
            CsvWriter(folder / "metrics.csv", run.rows),
            TensorBoardWriter(folder / "tensorboard", run.rows),
            ConsoleWriter(self._config.num_epochs, engine.steps_per_epoch),
        ]
        writers = [*own, *tracking]
        try:
            while run.step < self._total_steps and not run.callbacks.has_stopped:
                self._train_epoch(writers)
        finally:
            for writer in own:
                writer.close()

    def _train_epoch(self, writers: Sequence[Writer]) -> None:
        """Trains to the end of the epoch, or until asked to stop; saves if due."""
        run, exp = self.run, self._exp
        epoch = run.step // exp.engine.steps_per_epoch + 1
        end = epoch * exp.engine.steps_per_epoch

        def progress(step: int, values: dict[str, float]) -> None:
            self._startup.finish("first_call")
            step_in_epoch = step - end + exp.engine.steps_per_epoch
            images_per_second = self._config.batch_size * step_in_epoch / run.clock.seconds
            for writer in writers:
                writer.progress(epoch, step_in_epoch, values, images_per_second)

        run.state, run.metrics, values, run.step = run_until(
            exp.engine,
            run.state,
            run.metrics,
            exp.engine.plan(run.state, epoch - 1),
            run.step,
            end,
            run.clock,
            should_stop=lambda step: self._stop.signum is not None or self._is_late(step),
            progress=progress,
        )
        signum = self._stop.signum  # read once: the lines below must agree on it
        is_due, row = self._is_late(run.step), None
        if run.step == end:
            row = self._finish_epoch(epoch, values)
            is_due |= epoch % self._config.checkpoint.every_epochs == 0
            is_due |= run.step == self._total_steps or run.callbacks.has_stopped
            is_due |= not exp.selection.is_last and exp.selection.is_best(row, run.rows[:-1])
            for writer in writers:
                writer.epoch(row)
        if is_due or signum is not None:
            self._save(row, signum)
        if signum is not None:
            raise Preempted(
                signum,
                f"stopped as asked; saved at step {run.step:,} of {self._total_steps:,}. "
                "The same command resumes",
            )

    def _is_late(self, step: int) -> bool:
        """Returns whether the time for a checkpoint within an epoch has come."""
        minutes = (time.monotonic() - self._saved_at) / 60
        return step > self._saved_step and minutes > self._config.checkpoint.every_minutes

    def _is_due(self, epoch: int) -> bool:
        """Returns whether an epoch is evaluated, unless a callback ends the training there."""
        return epoch % self._config.eval_every_epochs == 0 or epoch == self._config.num_epochs

    def _finish_epoch(self, epoch: int, values: dict[str, float]) -> Row:
        """Evaluates if due, asks the callbacks, and appends the epoch's row to the run's.

        Args:
          epoch: The epoch, from 1.
          values: Its training metrics.
        """
        run, exp = self.run, self._exp
        scale = np.ravel(run.state.lr_scale)[0]  # under pmap, that of one replica
        curve = {f"{exp.curve}_{name}": None for name in METRICS}
        if self._is_due(epoch):
            curve = self._evaluate_curve(f"epoch {epoch}")
        row = {
            "epoch": epoch,
            "step": run.step,
            "learning_rate": float(exp.schedule(run.step - 1) * scale),
            **{f"train_{name}": value for name, value in values.items()},
            **curve,
            "seconds": run.clock.seconds,
            "images_per_second": len(exp.dataset.train.labels) / run.clock.seconds,
            "events": "",
        }
        self._decide(row)
        run.rows.append(row)
        run.metrics, run.clock.seconds = exp.engine.no_metrics(), 0.0
        return row

    def _decide(self, row: Row) -> None:
        """Asks the callbacks, writes their decisions to the row, and scales the learning rate.

        If they end the training, the epoch is evaluated whether or not that was due.
        """
        run, exp = self.run, self._exp
        values = {f"train_{name}": row[f"train_{name}"] for name in METRICS}
        # The last epoch is evaluated even where a longer run would not: callbacks ignore that.
        is_regular = row["epoch"] % self._config.eval_every_epochs == 0
        values |= {name: row[f"{exp.curve}_{name}"] if is_regular else None for name in METRICS}
        decision = run.callbacks.after_epoch(values, row["learning_rate"])
        row["events"] = "; ".join(decision.events)
        if decision.learning_rate_factor != 1.0:
            factor = np.float32(decision.learning_rate_factor)
            run.state = run.state.replace(lr_scale=run.state.lr_scale * factor)
        if decision.stops and row[f"{exp.curve}_loss"] is None:
            row.update(self._evaluate_curve(f"epoch {row['epoch']}"))

    def _evaluate_curve(self, when: str) -> Row:
        """Evaluates the current state and returns its columns of metrics.csv.

        Args:
          when: Names the state in the error message.

        Raises:
          Diverged: If the loss is not finite. The training loss is from before the last update; a
            checkpoint must not replace an older one that still works.
        """
        exp = self._exp
        found = fetch(exp.evaluate[exp.curve](exp.engine.snapshot(self.run.state))[0])
        if not math.isfinite(found["loss"]):
            raise Diverged(f"the {exp.curve} loss became {found['loss']} by {when}. {WHAT_TO_DO}")
        return {f"{exp.curve}_{name}": value for name, value in found.items()}

    def _save(self, row: Row | None, signum: int | None) -> None:
        """Saves a checkpoint; row is that of the epoch that ends here, None within an epoch."""
        run, exp = self.run, self._exp
        is_evaluated = row is not None and row[f"{exp.curve}_loss"] is not None
        if not is_evaluated and signum is None:
            self._evaluate_curve(f"step {run.step}")
        arrays = self._arrays()
        if not self._is_finite(arrays["state"]):
            raise Diverged(f"a parameter became infinite by step {run.step}. {WHAT_TO_DO}")
        meta = {
            "rows": [*run.rows],
            "seconds": run.clock.seconds,
            "step_times": [*run.clock.step_times],
            "callbacks": run.callbacks.state_dict(),
            # For predictions, which do not need the data set.
            "classes": [*exp.dataset.class_names],
            "mean": exp.dataset.mean.tolist(),
            "std": exp.dataset.std.tolist(),
        }
        score = None if row is None else exp.selection.score(row)
        self._checkpoints.save(run.step, arrays, meta, score)
        self._saved_step, self._saved_at = run.step, time.monotonic()

    def evaluate_on_test(self, folder: Path) -> dict[str, Any]:
        """Evaluates the reported epoch on the test set and returns the summary.

        Args:
          folder: The workdir, for predictions.npz.
        """
        config, exp, run = self._config, self._exp, self.run
        reported, state = self._reported()
        metrics, logits = exp.evaluate["test"](state)
        test = fetch(metrics)
        dataset = exp.dataset
        path = folder / "predictions.npz"
        summary.write_predictions(
            path, np.asarray(logits), dataset.test.labels, dataset.class_names
        )
        train_seconds = sum(row["seconds"] for row in run.rows)
        step_times = run.clock.step_times or [1e3 * train_seconds / run.step]
        return {
            "experiment": config.experiment,
            "model": config.model.name,
            "num_params": sum(x.size for x in jax.tree.leaves(state.params)),
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
            "train_accuracy": reported["train_accuracy"],
            "val_accuracy": reported.get("val_accuracy"),
            "best_epoch": reported["epoch"],
            "selected_on": config.selected_on,
            "selected_by": config.selected_by,
            "stopped_early": run.callbacks.has_stopped and len(run.rows) < config.num_epochs,
            "step_time_ms": {
                "median": float(np.median(step_times)),
                "p95": float(np.percentile(step_times, 95)),
            },
            "images_per_second": len(dataset.train.labels) * len(run.rows) / train_seconds,
            "compile_seconds": exp.engine.compile_seconds,
            "train_seconds": train_seconds,
            "peak_memory_bytes": exp.engine.program_bytes,
        }

    def _reported(self) -> tuple[Row, TrainState]:
        """Returns the row of the epoch that the run reports, and a snapshot of its state."""
        row = self._exp.selection.best(self.run.rows) or self.run.rows[-1]
        if row["step"] == self.run.step:
            return row, self._exp.engine.snapshot(self.run.state)
        print(f"restored epoch {row['epoch']}, the best by {self._config.selected_by}")
        sharding = self._exp.engine.replicated
        saved, _ = self._checkpoints.restore(row["step"], self._arrays(), sharding)
        return row, saved["state"]
