"""Checks a config before data is loaded and programs are compiled."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from ml_collections import ConfigDict

from cifar_jax import augment, data, gpu_graph, step
from cifar_jax.config import check_kinds, flatten
from cifar_jax.engine import PARALLEL
from cifar_jax.errors import UserError, unknown
from cifar_jax.experiment.parts import (
    build_averaging,
    build_fine_tuning,
    build_groups,
    build_learning_rates,
    build_network,
    build_optimizer,
    build_rescale,
    build_schedule,
    compute_dtype,
    make_callbacks,
)
from cifar_jax.run import trackers
from cifar_jax.selection import METRICS, SELECTED_ON
from cifar_jax.transfer import fine_tuning
from cifar_jax.tree_paths import split

DTYPES = ("float32", "bfloat16", "auto")
# Smallest and largest side in pixels to which images are resized.
RESIZE_RANGE = (8, 1024)
# The fields that have one of several values, and those that have a minimum.
_CHOICES = {
    "selected_on": SELECTED_ON,
    "selected_by": METRICS,
    "data.name": data.NAMES,
    "data.label": data.LABELS,
    "augment.normalize": augment.NORMALIZATIONS,
    "augment.resize_method": augment.RESIZE_METHODS,
    "transfer.train": fine_tuning.TRAIN,
    "dtype": DTYPES,
    "parallel": PARALLEL,
    "gpu_graph": gpu_graph.SETTINGS,
}
_MIN = {
    "num_epochs": 1,
    "batch_size": 1,
    "eval_every_epochs": 1,
    "eval_batch_size": 1,
    "steps_per_call": 0,
    "data.limit": 0,
    "checkpoint.every_epochs": 1,
    "checkpoint.every_minutes": 0,
}


def checked(config: ConfigDict) -> ConfigDict:
    """Returns a copy of a valid config, resolved (see `resolved`); loads no data.

    Raises:
      UserError: If a field is invalid, or if fields do not fit together.
    """
    check_fields(config)
    _check_parts(config)
    return resolved(config)


def check_fields(config: ConfigDict) -> None:
    """Checks every field by itself, and the few combinations that need no network.

    Raises:
      UserError: If a field is invalid.
    """
    check_kinds(config)
    values = flatten(config)
    for field, low in _MIN.items():
        if values[field] < low:
            raise UserError(f"{field} must be at least {low}, got {values[field]}")
        if values[field] >= 2**31:
            raise UserError(f"{field} must be below 2**31, got {values[field]}")
    for field in ("data.val_fraction", "label_smoothing"):
        if not 0 <= values[field] < 1:
            raise UserError(f"{field} must be in [0, 1), got {values[field]}")
    for field, known in _CHOICES.items():
        if values[field] not in known:
            raise unknown(field, values[field], known)
    low, high = RESIZE_RANGE
    if config.augment.resize and not low <= config.augment.resize <= high:
        raise UserError(
            f"augment.resize must be 0 or from {low} to {high}, got {config.augment.resize}"
        )
    _check_train_sizes(config)
    if config.augment.views not in augment.VIEWS:
        raise UserError(f"augment.views must be one of {augment.VIEWS}, got {config.augment.views}")
    if config.optim.sam_rho < 0:
        raise UserError(f"optim.sam_rho must be at least 0, got {config.optim.sam_rho}")
    if config.optim.sam_rho and config.transfer.unfreeze_epochs:
        raise UserError(
            "optim.sam_rho and transfer.unfreeze_epochs cannot be combined: SAM would move layers "
            "that do not train yet"
        )
    if config.selected_on == "val" and not config.data.val_fraction:
        raise UserError("selected_on 'val' needs data.val_fraction above 0")
    if config.selected_on == "test" and config.data.val_fraction:
        raise UserError(
            "selected_on 'test' needs data.val_fraction 0: with a validation split, epochs are not "
            "evaluated on the test set"
        )
    trackers.parse(config.trackers)
    for field, seed in (("seed", config.seed), ("data.val_seed", config.data.val_seed)):
        if not 0 <= seed < 2**32:
            raise UserError(f"{field} must be from 0 to 4294967295, got {seed}")


def _check_train_sizes(config: ConfigDict) -> None:
    """Raises UserError if the fields of progressive resizing are invalid."""
    sizes, epochs = config.augment.train_sizes, tuple(config.augment.train_size_epochs)
    if not sizes and not epochs:
        return
    low, high = RESIZE_RANGE
    if not all(isinstance(x, int) and low <= x <= high for x in sizes):
        raise UserError(
            f"augment.train_sizes must be whole numbers from {low} to {high}, got {sizes}"
        )
    if len(sizes) != len(epochs) + 1 or not epochs:
        raise UserError(
            "augment.train_sizes must have one entry more than augment.train_size_epochs, which "
            f"has at least one, got {sizes} and {epochs}"
        )
    is_valid = all(isinstance(x, int) and 0 < x < config.num_epochs for x in epochs)
    if not is_valid or list(epochs) != sorted(set(epochs)):
        raise UserError(
            "augment.train_size_epochs must be whole numbers that increase, above 0 and below "
            f"num_epochs, got {epochs}; for a short trial, add --config.augment.train_sizes=() "
            "--config.augment.train_size_epochs=()"
        )
    if config.transfer.train == "head":
        raise UserError("augment.train_sizes needs transfer.train 'all', got 'head'")


def _check_parts(config: ConfigDict) -> None:
    """Builds the parts without data, to find errors in combinations of fields."""
    make_callbacks(config)
    build_averaging(config, steps_per_epoch=1000)
    schedule = build_schedule(config, steps_per_epoch=1000)
    build_learning_rates(config, schedule, steps_per_epoch=1000)
    build_optimizer(config)
    if augment.is_mix(config.augment.ops):
        augment.parse(config.augment.ops)  # its error names the right field
    augment.check(config.augment.ops)
    if augment.parse_mix(config.augment.mix) is not None:
        augment.check(config.augment.mix)
    network = step.abstract(partial(build_network, config, 10, jnp.float32))
    _check_optimizer(config, network, build_fine_tuning(config, network))
    for size in config.augment.train_sizes:
        _check_train_size(config, network, size)


def _check_train_size(config: ConfigDict, network: nnx.Module, size: int) -> None:
    """Raises UserError if the network's parameters would differ with images of another size."""
    config = config.copy_and_resolve_references()
    config.augment.resize = size
    other = step.abstract(partial(build_network, config, 10, jnp.float32))
    shapes, expected = (
        jax.tree.map(jnp.shape, nnx.to_pure_dict(nnx.state(x, nnx.Param))) for x in (other, network)
    )
    if shapes != expected:
        raise UserError(
            "augment.train_sizes needs a network whose parameters do not depend on the size of the "
            f"images, but those of {config.model.name} do"
        )


def _check_optimizer(
    config: ConfigDict, network: nnx.Module, tuning: fine_tuning.FineTuning
) -> None:
    """Raises UserError if the optimizers do not fit the parameters that they train."""
    groups = build_groups(config, network, tuning)
    build_rescale(config, groups)
    optimizer = build_optimizer(config, tuning, groups=groups)
    params = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    jax.eval_shape(optimizer.init, split(params, tuning.trains)[0])


def check_weights(config: ConfigDict) -> None:
    """Reads the pretrained weights of a new run, if it has any.

    They are read again when the network is initialized. That takes a second; a wrong file should be
    refused before the data are read and the training program is compiled.

    Raises:
      UserError: If they cannot be loaded, or belong to another network.
    """
    if config.transfer.weights:
        # The number of classes only affects the head, which is not required.
        build = partial(build_network, config, 10, jnp.float32)
        tuning = build_fine_tuning(config, step.abstract(build))
        tuning.read(jax.eval_shape(partial(step.init, build, optax.identity()), 0))


def resolved(config: ConfigDict) -> ConfigDict:
    """Returns a copy with dtype "auto" resolved, so that a run keeps it on another device."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.dtype = str(compute_dtype(config.dtype))
    return config.lock()
