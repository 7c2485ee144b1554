"""The training loop of a run: trains, evaluates, calls the callbacks and saves, epoch by epoch."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from cifar_jax import parameter_table, run_state
from cifar_jax.agreement import Agreement, View
from cifar_jax.experiment import Experiment
from cifar_jax.loop import Diverged, run_until
from cifar_jax.metrics import Metrics, fetch
from cifar_jax.run.checkpoint import Checkpoints
from cifar_jax.run.writers import ConsoleWriter, CsvWriter, Row, TensorBoardWriter, Writer
from cifar_jax.runtime import distributed
from cifar_jax.runtime.signals import Preempted, StopRequest
from cifar_jax.runtime.startup import Startup
from cifar_jax.selection import METRICS
from cifar_jax.step import TrainState
from cifar_jax.transfer.features import compute_all

# If an epoch takes longer than this, the user should know before the first one ends.
_LONG_EPOCH_SECONDS = 300.0


class Trainer:
    """The training loop of one run, which connects its workdir, engine and callbacks.

    Attributes:
      run: The part of the run that changes during training.
    """

    def __init__(
        self,
        config: ConfigDict,
        exp: Experiment,
        checkpoints: Checkpoints,
        stop: StopRequest,
        startup: Startup,
        *,
        all_parameters: bool = False,
    ):
        """Starts at step 0, or at the latest checkpoint if there is one.

        Args:
          config: The run's config, checked and resolved.
          exp: The parts of the run.
          checkpoints: The checkpoints in the run's workdir.
          stop: The request to stop, made by a signal or a deadline.
          startup: The stopwatch of the start, which the first call to the device finishes.
          all_parameters: See `train.train`.

        Raises:
          UserError: If no checkpoint can be restored, or the run cannot continue on these devices.
        """
        self._config, self._exp, self._checkpoints = config, exp, checkpoints
        self._stop, self._startup = stop, startup
        self._num_calls = 0
        self._queued_evaluation: tuple[int, Metrics] | None = None  # its step, and its result
        self._has_evaluated = False
        will_resume = checkpoints.latest_step is not None
        self.run = run_state.start(exp, config.steps_per_call, will_resume=will_resume)
        params = exp.engine.snapshot(self.run.state).params
        max_rows = math.inf if all_parameters else parameter_table.MAX_ROWS
        print(parameter_table.table(params, max_rows))
        if run_state.resume(checkpoints, self.run, exp):
            self._drop_extra_evaluations()
            if self._has_steps_left:
                run_state.check_devices(self.run, exp)
            print(f"resumed at step {self.run.step:,} of {self._total_steps:,}")
        self._saved_step, self._saved_at = self.run.step, time.monotonic()
        # One process decides by itself, without the delay of a call.
        self._agreement = Agreement(exp.engine.mesh) if distributed.num_processes() > 1 else None
        if self._agreement:
            self.run.clock.agreed_step_seconds = 0.0

    @property
    def _has_steps_left(self) -> bool:
        return self.run.step < self._total_steps and not self.run.callbacks.has_stopped

    @property
    def _total_steps(self) -> int:
        return self._config.num_epochs * self._exp.engine.steps_per_epoch

    def _drop_extra_evaluations(self) -> None:
        exp, run = self._exp, self.run
        for row in run.rows:
            # The last epoch is always evaluated. If num_epochs has been increased since, that
            # evaluation is dropped unless it is due anyway. It is also kept if evaluations select
            # the reported epoch, because the best checkpoint may be from the former last epoch.
            if not (
                exp.selection.is_on_curve
                or run.callbacks.has_stopped
                or self._evaluates_at(row["epoch"])
            ):
                row.update({name: None for name in row if name.startswith(f"{exp.curve}_")})

    def train(self, folder: Path, tracking: Sequence[Writer], environment: dict[str, Any]) -> None:
        """Trains to the last epoch.

        Args:
          folder: The workdir, for metrics.csv and TensorBoard's events.
          tracking: Further writers, which the caller closes.
          environment: The device, versions and commit; see runtime/environment.py.

        Raises:
          Preempted: If a stop is requested, once the state is saved.
          Diverged: If the loss becomes NaN or infinite.
          UserError: If a checkpoint cannot be saved.
        """
        run, engine = self.run, self._exp.engine
        trains = self._has_steps_left
        if trains:
            run.continue_on(environment)
        if self._exp.features and trains:
            compute_all(self._exp.features, engine.snapshot(run.state))
            self._startup.mark("features")
        run_writers: list[Writer] = []
        if distributed.is_main():
            run_writers = [
                CsvWriter(folder / "metrics.csv", run.rows),
                TensorBoardWriter(folder / "tensorboard", run.rows),
                ConsoleWriter(self._config.num_epochs, engine.steps_per_epoch),
            ]
        writers = [*run_writers, *tracking]
        try:
            while self._has_steps_left:
                self._train_epoch(writers)
        except Diverged as error:
            raise Diverged(error.what, self._checkpoints.latest_step) from error
        finally:
            for writer in run_writers:
                writer.close()

    def _train_epoch(self, writers: Sequence[Writer]) -> None:
        """Trains to the end of the epoch or until a stop is requested; saves if due."""
        run, exp = self.run, self._exp
        epoch = run.step // exp.engine.steps_per_epoch + 1
        end = epoch * exp.engine.steps_per_epoch

        def progress(step: int, values: dict[str, float]) -> None:
            self._startup.finish("first_call")
            if self._agreement:
                run.clock.agreed_step_seconds = self._agreement.fetch().step_seconds
            self._num_calls += 1
            if self._num_calls == 2:  # the first one warms up the device
                steps_left = self._total_steps - run.step
                print(
                    _estimate(run.clock.step_times[-1], exp.engine.steps_per_epoch, steps_left),
                    end="",
                )
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
            should_stop=lambda step: self._signum is not None or self._save_is_overdue(step),
            progress=progress,
            queued=self._queue,
        )
        signum = self._signum  # read once, because the lines below must agree on it
        saves, row = self._save_is_overdue(run.step), None
        if run.step == end:
            row = self._finish_epoch(epoch, values)
            saves |= epoch % self._config.checkpoint.every_epochs == 0
            saves |= run.step == self._total_steps or run.callbacks.has_stopped
            saves |= not exp.selection.is_last and exp.selection.is_best(row, run.rows[:-1])
            for writer in writers:
                writer.epoch(row)
        if saves or signum is not None:
            self._save(row, signum)
        if signum is not None:
            raise Preempted(
                signum,
                f"stopped as requested; saved at step {run.step:,} of {self._total_steps:,}. "
                "The same command resumes",
            )

    def _save_is_overdue(self, step: int) -> bool:
        """Returns whether a checkpoint within an epoch is due."""
        minutes = self._decide_on().minutes
        return step > self._saved_step and minutes > self._config.checkpoint.every_minutes

    @property
    def _signum(self) -> int | None:
        """The signal that requests a stop, or None."""
        return int(self._decide_on().signum) or None

    def _own_view(self) -> View:
        minutes = (time.monotonic() - self._saved_at) / 60
        return View(self._stop.signum or 0, minutes, self.run.clock.step_seconds)

    def _decide_on(self) -> View:
        """Returns the view that decides: that of all processes, if there are several."""
        return self._agreement.view if self._agreement else self._own_view()

    def _evaluates_at(self, epoch: int) -> bool:
        """Returns whether an epoch is evaluated even if no callback ends training there."""
        return epoch % self._config.eval_every_epochs == 0 or epoch == self._config.num_epochs

    def _finish_epoch(self, epoch: int, values: dict[str, float]) -> Row:
        """Evaluates if due, calls the callbacks, and appends the epoch's row to the run's.

        Args:
          epoch: The epoch, counted from 1.
          values: The training metrics of the epoch.
        """
        run, exp = self.run, self._exp
        scale = np.ravel(run.state.lr_scale.addressable_data(0))[0]  # pmap has one per replica
        curve = {f"{exp.curve}_{name}": None for name in METRICS}
        if self._evaluates_at(epoch):
            curve = self._evaluate_curve(f"epoch {epoch}")
        row = {
            "epoch": epoch,
            "step": run.step,
            "learning_rate": float(exp.schedule(run.step - 1) * scale),
            **{f"train_{name}": value for name, value in values.items()},
            **curve,
            "seconds": run.clock.seconds,
            "images_per_second": exp.engine.examples_per_epoch / run.clock.seconds,
            "events": "",
        }
        self._decide(row)
        run.rows.append(row)
        run.metrics, run.clock.seconds = exp.engine.no_metrics(), 0.0
        return row

    def _decide(self, row: Row) -> None:
        """Calls the callbacks, writes their decisions to the row, and scales the learning rate.

        If they end the training, the epoch is evaluated even if that is not due.
        """
        run, exp = self.run, self._exp
        values = {f"train_{name}": row[f"train_{name}"] for name in METRICS}
        # The last epoch is always evaluated. Callbacks ignore that evaluation if a longer run would
        # not make it, so that both runs make the same decisions.
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
          when: The name of the state in the error message, such as "epoch 3".

        Raises:
          Diverged: If the loss is not finite. This can happen even if the training loss, computed
            before the last update, is finite. Such a state must not replace an older checkpoint.
        """
        exp, run = self._exp, self.run
        step, metrics = self._queued_evaluation or (None, None)
        if step != run.step:
            metrics = self._start_evaluation(run.state)
        self._queued_evaluation, self._has_evaluated = None, True
        values = fetch(metrics)
        if not math.isfinite(values["loss"]):
            raise Diverged(f"the {exp.curve} loss became {values['loss']} by {when}")
        return {f"{exp.curve}_{name}": value for name, value in values.items()}

    def _start_evaluation(self, state: TrainState) -> Metrics:
        exp = self._exp
        metrics, _ = exp.evaluate[exp.curve](exp.engine.snapshot(state))
        return metrics

    def _queue(self, state: TrainState, step: int) -> None:
        """Queues what follows a call on the devices: see agreement.py and `_queue_evaluation`."""
        if self._agreement:
            self._agreement.propose(self._own_view())
        self._queue_evaluation(state, step)

    def _queue_evaluation(self, state: TrainState, step: int) -> None:
        """Queues the evaluation of an epoch behind its last call, if it is due.

        The device then continues without waiting for the host to fetch the training metrics. The
        first evaluation compiles its program, which would count as training time.
        """
        epoch, is_within = divmod(step, self._exp.engine.steps_per_epoch)
        if self._has_evaluated and not is_within and self._evaluates_at(epoch):
            self._queued_evaluation = step, self._start_evaluation(state)

    def _save(self, row: Row | None, signum: int | None) -> None:
        """Saves a checkpoint.

        Args:
          row: The row of the epoch that ends at this step, or None within an epoch.
          signum: The signal that requests a stop, or None.
        """
        run, exp = self.run, self._exp
        is_evaluated = row is not None and row[f"{exp.curve}_loss"] is not None
        if not is_evaluated and signum is None:
            self._evaluate_curve(f"step {run.step}")
        score = None if row is None else exp.selection.score(row)
        run_state.save(self._checkpoints, run, exp, score)
        self._saved_step, self._saved_at = run.step, time.monotonic()
        if self._agreement:  # its view is from before
            self._agreement.view = self._agreement.view._replace(minutes=0.0)


def _estimate(step_ms: float, steps_per_epoch: int, steps_left: int) -> str:
    """Returns an estimate of a run's duration as a line, or "" if epochs are short."""
    epoch = step_ms / 1e3 * steps_per_epoch
    if epoch < _LONG_EPOCH_SECONDS:
        return ""
    return (
        f"note: on this device, an epoch takes about {epoch / 60:,.0f} minutes and the rest of the "
        f"run {step_ms / 3.6e6 * steps_left:,.1f} hours. To shorten it, set --config.num_epochs, "
        "or choose a smaller network such as configs/cnn2.py\n"
    )
