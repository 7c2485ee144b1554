"""Hands out the trials of a study to workers, each to one worker at a time, without a lock."""

import shutil
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

from cifar_jax.study import ownership
from cifar_jax.study.ownership import Owner, Timing

# Marks a trial beyond the requested number, created if two workers ask for the last one at once.
_SURPLUS = "surplus"


def trials_of(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials of a study, except waiting and surplus ones, ordered by number."""
    states = [s for s in TrialState if s != TrialState.WAITING]
    trials = study.get_trials(deepcopy=False, states=states)
    return sorted((t for t in trials if _SURPLUS not in t.user_attrs), key=lambda t: t.number)


def folder_of(workdir: Path, number: int) -> Path:
    """Returns the workdir of a trial."""
    return workdir / "trials" / str(number)


def next_trial(
    study: optuna.Study, num_trials: int, workdir: Path, timing: Timing
) -> tuple[Trial, Owner] | None:
    """Returns a trial to train and its ownership, or None if there is none at the moment.

    A trial that another worker has abandoned comes before a new one.

    Args:
      study: The study.
      num_trials: The number of trials of all workers together.
      workdir: The workdir of the search.
      timing: See ownership.claim.
    """
    trials = trials_of(study)
    for left in trials[:num_trials]:
        owner = None
        if left.state == TrialState.RUNNING:
            owner = ownership.claim(folder_of(workdir, left.number), timing)
        if owner is not None:
            # Its worker may have finished it after the list was fetched.
            if study._storage.get_trial(left._trial_id).state == TrialState.RUNNING:
                return Trial(study, left._trial_id), owner
            owner.close(abandons=False)
    if len(trials) >= num_trials:
        return None
    trial = study.ask()
    folder = folder_of(workdir, trial.number)
    owner = ownership.claim(folder, timing)
    if owner is None:  # another worker was quicker, and treats the trial as abandoned
        return next_trial(study, num_trials, workdir, timing)
    # Other workers may have asked since. Numbers are consecutive, so all workers agree on which
    # trials are surplus.
    if sum(t.number < trial.number for t in trials_of(study)) >= num_trials:
        trial.set_user_attr(_SURPLUS, True)
        study.tell(trial, state=TrialState.FAIL)
        owner.close(abandons=False)
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return trial, owner
