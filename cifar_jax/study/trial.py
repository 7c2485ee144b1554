"""Trains one trial: a run in a workdir of its own, whose epochs are reported to Optuna."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optuna
from ml_collections import ConfigDict
from optuna.trial import Trial, TrialState

from cifar_jax import experiment, selection
from cifar_jax.errors import UserError
from cifar_jax.loop import Diverged
from cifar_jax.run import metrics_csv
from cifar_jax.run.storage import saved_steps
from cifar_jax.run.workdir import InUse
from cifar_jax.run.writers import Row, Writer
from cifar_jax.study.ownership import Owner
from cifar_jax.study.programs import InvalidTrial, Programs
from cifar_jax.train import train

LOG = "log.txt"


class OwnershipLost(Exception):
    """Another worker has taken over the trial."""


class Outcome(NamedTuple):
    """How a trial ended.

    Attributes:
      state: COMPLETE, PRUNED (also if it diverged) or FAIL.
      value: The validation metric of the reported epoch, negated if it is the loss; None unless
        COMPLETE.
      error: Why it failed or diverged, or "".
    """

    state: TrialState
    value: float | None = None
    error: str = ""


class TrialWriter(Writer):
    """Reports evaluated epochs to Optuna, and stops the training if the trial is pruned or lost."""

    def __init__(
        self,
        trial: Trial,
        owner: Owner,
        config: ConfigDict,
        on_epoch: Callable[[int, float | None], Any],
        check_stop: Callable[[], Any],
    ):
        """Creates a writer.

        Args:
          trial: The trial, which another worker may have begun.
          owner: Its ownership.
          config: Its config.
          on_epoch: Called with the epoch and, if it was evaluated, the value reported.
          check_stop: Called between calls to the device; raises an exception to stop.
        """
        self._trial, self._owner, self._config = trial, owner, config
        self._on_epoch, self._check_stop = on_epoch, check_stop
        self._selection = selection.of_config(config)
        frozen = trial.study._storage.get_trial(trial._trial_id)
        self._reported = set(frozen.intermediate_values)

    def progress(self, epoch: int, step: int, values: Row, images_per_second: float) -> None:
        """Stops if requested, or if another worker has taken the trial."""
        self._check_stop()
        if not self._owner.is_current():
            raise OwnershipLost

    def epoch(self, row: Row) -> None:
        """Reports an epoch.

        Raises:
          OwnershipLost: If another worker has taken over the trial.
          TrialPruned: If the pruner ends the trial.
        """
        if not self._owner.is_current():
            raise OwnershipLost
        epoch = row["epoch"]
        value = None
        # In a trial, the curve is that of the validation split.
        if row[f"{self._selection.curve}_loss"] is not None:
            value = self._selection.score(row)
        self._on_epoch(epoch, value)
        if value is None:
            return
        if epoch not in self._reported:
            self._trial.report(value, epoch)
        # Epochs that a killed worker reported after its last checkpoint are trained again here.
        # Pruning is considered only from the newest reported epoch on.
        is_newest = epoch >= max(self._reported, default=0)
        if is_newest and epoch < self._config.num_epochs and self._trial.should_prune():
            raise optuna.TrialPruned


def run(
    config: ConfigDict, folder: Path, writer: TrialWriter, programs: Programs, options: dict
) -> Outcome:
    """Trains a trial, or continues it, and returns how it ended.

    Args:
      config: The config with the values of the trial.
      folder: The workdir of the trial.
      writer: Reports its epochs.
      programs: The data set and the programs of earlier trials.
      options: Further arguments of `train`.

    Raises:
      OwnershipLost: If another worker has taken over the trial.
      Preempted: After a signal, once the state is saved.
      UserError: If the trial could not be trained for a reason other than its values, such as
        missing data or a full disk.
    """
    try:
        with _logged(folder / LOG):
            try:
                config = experiment.checked(config)
                if not saved_steps(folder / "checkpoints"):
                    experiment.check_weights(config)
            except UserError as error:
                raise InvalidTrial(str(error)) from error
            summary = train(
                config,
                folder,
                dataset=programs.dataset(config),
                create=programs.create,
                writers=[writer],
                **options,
            )
    except optuna.TrialPruned:
        return Outcome(TrialState.PRUNED)
    except Diverged as error:
        return Outcome(TrialState.PRUNED, error=error.what)
    except InvalidTrial as error:
        return Outcome(TrialState.FAIL, error=str(error))
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Outcome(TrialState.FAIL, error=f"out of memory: {str(error).splitlines()[0]}")
    except InUse as error:
        raise OwnershipLost from error
    rows = metrics_csv.read(folder / "metrics.csv")
    (reported,) = (row for row in rows if row["epoch"] == summary["best_epoch"])
    value = selection.of_config(config).score(reported)
    return Outcome(TrialState.COMPLETE, value)


def finish(trial: Trial, owner: Owner, folder: Path, outcome: Outcome) -> None:
    """Reports to Optuna how a trial ended.

    Raises:
      OwnershipLost: If another worker has taken over the trial.
      UpdateFinishedTrialError: If another worker has finished the trial.
    """
    if not owner.is_current():
        raise OwnershipLost
    path = folder / "metrics.csv"
    rows = metrics_csv.read(path) if path.exists() else []
    attributes = {
        "epochs": len(rows),
        "seconds": sum(row.get("seconds") or 0.0 for row in rows),
        "error": outcome.error,
    }
    for name, value in attributes.items():
        trial.set_user_attr(name, value)
    trial.study.tell(trial, outcome.value, state=outcome.state, skip_if_finished=True)
    if outcome.state != TrialState.COMPLETE:  # its network will not be used
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    """Appends what the body prints to a file."""
    with (
        path.open("a", buffering=1, errors="backslashreplace") as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield
