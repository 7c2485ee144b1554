"""Keeps the data set and compiled programs, so that similar trials share them."""

from collections import OrderedDict

import jax
from ml_collections import ConfigDict

from cifar_jax import experiment
from cifar_jax.data import Dataset
from cifar_jax.errors import UserError
from cifar_jax.experiment import Experiment

# Each program holds the data set on the device, 150 MB for CIFAR.
_MAX_PROGRAMS = 4


class InvalidTrial(UserError):
    """The values of a trial are incompatible with each other."""


class Programs:
    """The latest data set, and the latest few programs."""

    def __init__(self):
        self._data: tuple[str, Dataset] | None = None
        self._experiments: OrderedDict[str, Experiment] = OrderedDict()

    def dataset(self, config: ConfigDict) -> Dataset:
        """Returns the data set of a config; see experiment.load_data."""
        key = config.data.to_json()
        if self._data is None or self._data[0] != key:
            self._data = key, experiment.load_data(config)
        return self._data[1]

    def create(
        self, config: ConfigDict, dataset: Dataset, *, mesh: jax.sharding.Mesh | None = None
    ) -> Experiment:
        """Returns the parts of a run, reusing an earlier trial's program if it is the same.

        Args:
          config: The checked config of the run.
          dataset: The images that `dataset` has returned for it.
          mesh: The devices, the same for all trials.

        Raises:
          InvalidTrial: If parts of the config are incompatible.
        """
        key = experiment.program_key(config)
        try:
            if key in self._experiments:
                self._experiments.move_to_end(key)
                return experiment.reused(self._experiments[key], config)
            exp = experiment.create(config, dataset, mesh=mesh)
        except UserError as error:
            raise InvalidTrial(str(error)) from error
        if key is not None:
            self._experiments[key] = exp
            if len(self._experiments) > _MAX_PROGRAMS:
                self._experiments.popitem(last=False)
        return exp
