"""Builds the parts of a run from its config: data set, network, optimizer, engine.

validation.py checks a config, parts.py builds the functions that it describes, and reuse.py says
which configs share a compiled program.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import optax
from ml_collections import ConfigDict

from cifar_jax import data, gpu_graph, optim, selection
from cifar_jax.engine import Engine, count_steps, make_mesh
from cifar_jax.engine import create as create_engine
from cifar_jax.errors import UserError
from cifar_jax.evaluate import Evaluate, make_evaluate
from cifar_jax.experiment.parts import (
    Parts,
    build_averaging,
    build_learning_rates,
    build_schedule,
    caches_features,
    make_callbacks,
    make_parts,
)
from cifar_jax.experiment.reuse import program_key
from cifar_jax.experiment.validation import DTYPES, check_weights, checked, resolved
from cifar_jax.runtime import distributed
from cifar_jax.selection import Selection
from cifar_jax.transfer import features

__all__ = ["DTYPES", "Experiment", "Parts", "check_weights", "checked", "create", "load_data"]
__all__ += ["make_callbacks", "make_mesh", "make_parts", "program_key", "resolved", "reused"]


class Experiment(NamedTuple):
    """The parts of a run, built from its config.

    Attributes:
      dataset: The images and labels, on the host.
      engine: The compiled training program.
      evaluate: The function that evaluates each split: "test" and, if there is one, "val".
      selection: The rule that picks the epoch to report and the split to evaluate between epochs.
      schedule: Maps the step to the learning rate, before state.lr_scale is applied: that of
        `config.optim`, not those of its groups of parameters.
      callbacks: The callbacks that decide between epochs, in their initial state.
      features: The features of each split, if they are computed only once; otherwise empty.
    """

    dataset: data.Dataset
    engine: Engine
    evaluate: dict[str, Evaluate]
    selection: Selection
    schedule: Callable[[int], jax.Array]
    callbacks: optim.callbacks.Callbacks
    features: dict[str, features.Features]

    @property
    def curve(self) -> str:
        """The split that is evaluated between epochs: "val" if there is one, otherwise "test"."""
        return self.selection.curve


def load_data(config: ConfigDict) -> data.Dataset:
    """Loads the data set that a config names.

    Raises:
      UserError: If it is missing or cannot be read.
    """
    return data.load(
        config.data.name,
        label=config.data.label,
        data_dir=config.data.dir or None,
        val_fraction=config.data.val_fraction,
        val_seed=config.data.val_seed,
        limit=config.data.limit,
    )


def create(
    config: ConfigDict,
    dataset: data.Dataset,
    *,
    mesh: jax.sharding.Mesh | None = None,
    make_schedule: Callable[[int], optax.Schedule] | None = None,
) -> Experiment:
    """Builds the network and compiles the training program.

    Args:
      config: A config that `checked` has returned.
      dataset: The images; see `load_data`.
      mesh: The devices to use; by default, all of all hosts.
      make_schedule: Maps the number of steps per epoch to the schedule to use instead of the
        config's. The learning rates of optim.groups keep their ratios to optim.learning_rate.

    Raises:
      UserError: If parts of the config do not fit together.
    """
    mesh = mesh or make_mesh()
    steps_per_epoch = count_steps(
        config.batch_size, len(dataset.train.labels), mesh.size, config.drop_last
    )
    _check_length(config, steps_per_epoch)
    schedule = (make_schedule or partial(build_schedule, config))(steps_per_epoch)
    learning_rates = build_learning_rates(
        config, schedule, steps_per_epoch, only_ratios=make_schedule is not None
    )
    is_cached = caches_features(config)
    parts = make_parts(config, dataset.info, steps_per_epoch=steps_per_epoch, on_features=is_cached)
    splits = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    splits = {name: split for name, split in splits.items() if split is not None}
    computed = {}
    if is_cached:
        computed = features.of_splits(
            parts.features_step,
            splits,
            jax.eval_shape(parts.init, 0),
            batch_size=config.eval_batch_size,
            mesh=mesh,
        )
    inputs = {name: split.images for name, split in splits.items()} | computed
    engine = create_engine(
        parts.make_train_step,
        parts.init,
        inputs["train"],
        dataset.train.labels,
        batch_size=config.batch_size,
        seed=config.seed,
        schedule=learning_rates,
        pretrained=parts.tuning.load if config.transfer.weights else None,
        parallel=config.parallel,
        loop=config.steps_per_call != 1,
        mesh=mesh,
        cuda_graph=distributed.on_main(partial(gpu_graph.decide, config.gpu_graph)),
        average_rate=_average_rate(config, steps_per_epoch),
        drop_last=config.drop_last,
        later=parts.later,
        # The layers after a loaded whitening kernel were trained for it.
        fit_to_images=None if config.transfer.weights else parts.fit_to_images,
    )
    evaluate = {
        name: make_evaluate(
            parts.eval_step,
            inputs[name],
            split.labels,
            batch_size=config.eval_batch_size,
            mesh=mesh,
        )
        for name, split in splits.items()
        if name != "train"
    }
    return Experiment(
        dataset,
        engine,
        evaluate,
        selection.of_config(config),
        schedule,
        make_callbacks(config),
        computed,
    )


def reused(exp: Experiment, config: ConfigDict) -> Experiment:
    """Returns the experiment of a config whose `program_key` is that of `exp`, sharing its program.

    Args:
      exp: The parts of another run on the same images.
      config: A config that `checked` has returned.

    Raises:
      UserError: If a field of the schedule or num_epochs is invalid.
    """
    _check_length(config, exp.engine.steps_per_epoch)
    steps_per_epoch = exp.engine.steps_per_epoch
    schedule = build_schedule(config, steps_per_epoch)
    learning_rates = build_learning_rates(config, schedule, steps_per_epoch)
    average_rate = _average_rate(config, steps_per_epoch)
    return exp._replace(
        engine=exp.engine.reused(config.seed, learning_rates, average_rate),
        selection=selection.of_config(config),
        schedule=schedule,
        callbacks=make_callbacks(config),
    )


def _average_rate(
    config: ConfigDict, steps_per_epoch: int
) -> Callable[[jax.Array], jax.Array] | None:
    averaging = build_averaging(config, steps_per_epoch)
    return averaging and averaging.rate


def _check_length(config: ConfigDict, steps_per_epoch: int) -> None:
    if config.num_epochs * steps_per_epoch >= 2**31:
        most = (2**31 - 1) // steps_per_epoch
        raise UserError(f"num_epochs must be at most {most}, got {config.num_epochs}")
    num_steps = config.num_epochs * steps_per_epoch
    if config.lookahead.every > num_steps:  # only the network at step 0 would be evaluated
        raise UserError(
            f"lookahead.every must be at most {num_steps}, the number of steps of the run, got "
            f"{config.lookahead.every}"
        )
