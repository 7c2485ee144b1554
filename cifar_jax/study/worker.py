"""A worker, which trains trials of a study until all of them have ended."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import optuna
from ml_collections import ConfigDict
from optuna.trial import FrozenTrial, Trial, TrialState

from cifar_jax import experiment
from cifar_jax.errors import UserError
from cifar_jax.run.storage import writing
from cifar_jax.runtime.signals import Preempted, StopRequest, catch_signals
from cifar_jax.study import ownership, queue, settings, space, trial
from cifar_jax.study.opening import connect, open_study, storage_errors
from cifar_jax.study.ownership import Owner, Timing
from cifar_jax.study.programs import Programs
from cifar_jax.study.progress import Progress

# A waiting worker reacts to a signal within this time, in seconds.
_REACTION = 0.2


class Search(NamedTuple):
    """A search, opened by this worker.

    Attributes:
      config: The config as the user gave it.
      trial_config: The config of the trials, without their values.
      space: The search space.
      study: The study.
      workdir: The workdir of the search.
      storage: The URL of the storage, or None for a file in the workdir.
    """

    config: ConfigDict
    trial_config: ConfigDict
    space: tuple[space.Parameter, ...]
    study: optuna.Study
    workdir: Path
    storage: str | None

    @property
    def num_trials(self) -> int:
        """The number of trials of all workers together."""
        return self.config.search.num_trials

    @property
    def trials(self) -> list[FrozenTrial]:
        """The trials of the search, ordered by number."""
        trials = queue.trials_of(self.study)
        # A worker may have been killed after it asked for one trial too many.
        return [t for i, t in enumerate(trials) if i < self.num_trials or t.state.is_finished()]

    def values(self, found: FrozenTrial) -> dict[str, Any]:
        """Returns the values of a trial by parameter name."""
        stored = found.params
        return {p.name: p.decode(stored[p.name]) for p in self.space if p.name in stored}


def open_search(config: ConfigDict, workdir: Path, storage: str | None) -> Search:
    """Checks a config and the workdir, and opens the study.

    Args:
      config: A complete config with a search space.
      workdir: The workdir, which is created if necessary.
      storage: The URL of an Optuna storage, or None for a file in the workdir.

    Raises:
      UserError: If a field is invalid, the workdir holds something else, or the storage cannot be
        reached.
    """
    parameters = space.parse(config.search.space)
    settings.check(config, space.longest(config, parameters))
    trial_config = settings.trial_config(config)
    if settings.is_new(workdir):
        space.check(trial_config, parameters)
        experiment.check_weights(trial_config)  # otherwise, every trial would fail
    backend = None if storage is None else connect(storage)
    name = settings.claim(config, workdir, storage)
    with storage_errors(storage), writing(workdir):
        study = open_study(trial_config, parameters, name, backend or workdir)
    return Search(config, trial_config, parameters, study, workdir, storage)


def work(
    search: Search,
    progress: Progress,
    *,
    timing: Timing = ownership.DEFAULT,
    mesh: jax.sharding.Mesh | None = None,
) -> None:
    """Trains trials until there are as many as requested, and all of them have ended.

    Raises:
      Preempted: After SIGTERM, SIGINT or SIGHUP, once the current trial is saved.
      UserError: If a trial could not be trained for a reason other than its values.
    """
    programs = Programs()
    with catch_signals() as stop, storage_errors(search.storage), writing(search.workdir):
        while True:
            _check(stop)
            trials = search.trials
            progress.update(trials, search.num_trials)
            found = queue.next_trial(search.study, search.num_trials, search.workdir, timing)
            if found is not None:
                _train(search, *found, programs, progress, lambda: _check(stop), {"mesh": mesh})
            elif all(t.state.is_finished() for t in search.trials):
                return
            else:
                progress.wait()
                _sleep(timing.interval, stop)


def _check(stop: StopRequest) -> None:
    if stop.signum is not None:
        raise Preempted(stop.signum, "stopped as requested. The same command continues the search")


def _sleep(seconds: float, stop: StopRequest) -> None:
    end = time.monotonic() + seconds
    while stop.signum is None and (left := end - time.monotonic()) > 0:
        time.sleep(min(left, _REACTION))


def _train(
    search: Search,
    running: Trial,
    owner: Owner,
    programs: Programs,
    progress: Progress,
    check_stop: Callable[[], None],
    options: dict[str, Any],
) -> None:
    """Trains one trial, and abandons it if this fails for a reason other than its values."""
    is_done = False
    try:
        values = {p.name: p.suggest(running) for p in search.space}
        folder = queue.folder_of(search.workdir, running.number)
        try:
            config = space.applied(search.trial_config, search.space, values)
        except UserError as error:
            outcome = trial.Outcome(TrialState.FAIL, error=str(error))
        else:
            progress.begin(running.number, config.num_epochs)
            writer = trial.TrialWriter(running, owner, config, progress.epoch, check_stop)
            outcome = trial.run(config, folder, writer, programs, options)
        trial.finish(running, owner, folder, outcome)
        is_done = True
        progress.end(running.number, values, outcome)
    # Another worker took the trial over, or finished it.
    except (trial.OwnershipLost, optuna.exceptions.UpdateFinishedTrialError):
        progress.lose(running.number)
    except Preempted as stopped:
        raise Preempted(
            stopped.exit_code - 128,
            f"stopped as requested; trial {running.number} is kept. The same command continues "
            "the search",
        ) from stopped
    finally:
        owner.close(abandons=not is_done)
