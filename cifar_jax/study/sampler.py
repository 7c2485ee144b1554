"""Samplers whose draws are a function of the seed, the trial and the parameter."""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

# {value of config.search.sampler: function from a seed to an Optuna sampler}.
_SAMPLERS = {
    "random": lambda seed: RandomSampler(seed=seed),
    "tpe": lambda seed: TPESampler(seed=seed, constant_liar=True),
}


def create(name: str, seed: int) -> BaseSampler:
    """Returns the sampler with a name from settings.SAMPLERS."""
    return SeededSampler(_SAMPLERS[name], seed)


class SeededSampler(BaseSampler):
    """Delegates to a sampler that is re-seeded for every draw.

    Thus draws depend neither on the worker that makes them nor on its earlier draws. Random
    sampling gives the same trials with any number of workers, even if some are killed. The draws of
    TPE also depend on all other trials at that moment, including running ones.
    """

    def __init__(self, make: Callable[[int], BaseSampler], seed: int):
        """Creates a sampler.

        Args:
          make: Maps a seed to the sampler to delegate to.
          seed: The seed of the study.
        """
        self._make, self._seed = make, seed

    def _seeded(self, trial: FrozenTrial, name: str = "") -> BaseSampler:
        entropy = [self._seed, trial.number, zlib.crc32(name.encode())]
        return self._make(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """See BaseSampler."""
        return self._seeded(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """See BaseSampler."""
        return self._seeded(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """See BaseSampler."""
        sampler = self._seeded(trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)
