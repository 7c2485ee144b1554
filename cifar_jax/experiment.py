"""Builds the parts of a run from its config: data set, network, optimizer, engine."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from cifar_jax import augment, data, gpu_graph, models, optim, step
from cifar_jax.config import check_kinds, flatten
from cifar_jax.engine import PARALLEL, Engine, count_steps, make_mesh
from cifar_jax.engine import create as create_engine
from cifar_jax.errors import UserError, unknown
from cifar_jax.evaluate import Evaluate, make_evaluate
from cifar_jax.optim import callbacks
from cifar_jax.run import trackers
from cifar_jax.selection import METRICS, SELECTED_ON, Selection, curve_split
from cifar_jax.transfer import features, fine_tuning

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


class Experiment(NamedTuple):
    """The parts of a run, built from its config.

    Attributes:
      dataset: The images and labels, on the host.
      engine: The compiled training program.
      evaluate: The function that evaluates each split: "test" and, if there is one, "val".
      selection: The rule that picks the epoch to report and the split to evaluate between epochs.
      schedule: Maps the step to the learning rate, before state.lr_scale is applied.
      callbacks: The callbacks that decide between epochs, in their initial state.
      features: The features of each split, if they are computed only once; otherwise empty.
    """

    dataset: data.Dataset
    engine: Engine
    evaluate: dict[str, Evaluate]
    selection: Selection
    schedule: Callable[[int], jax.Array]
    callbacks: callbacks.Callbacks
    features: dict[str, features.Features]

    @property
    def curve(self) -> str:
        """The split that is evaluated between epochs: "val" if there is one, otherwise "test"."""
        return self.selection.curve


def checked(config: ConfigDict) -> ConfigDict:
    """Returns a copy of a valid config, resolved (see `resolved`); loads no data.

    Raises:
      UserError: If a field is invalid, or if fields do not fit together.
    """
    _check_fields(config)
    _check_parts(config)
    return resolved(config)


def _check_fields(config: ConfigDict) -> None:
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
    if config.selected_on == "val" and not config.data.val_fraction:
        raise UserError("selected_on 'val' needs data.val_fraction above 0")
    if config.selected_on == "test" and config.data.val_fraction:
        raise UserError("selected_on 'test' needs data.val_fraction 0: only one split has curves")
    if config.trackers.strip() and not all(map(str.strip, config.trackers.split(","))):
        raise UserError(
            f"trackers must be names separated by commas, as in 'mlflow,wandb', got "
            f"{config.trackers!r}"
        )
    trackers.parse(config.trackers)
    for field, seed in (("seed", config.seed), ("data.val_seed", config.data.val_seed)):
        if not 0 <= seed < 2**32:
            raise UserError(f"{field} must be from 0 to 4294967295, got {seed}")


def _check_parts(config: ConfigDict) -> None:
    """Builds the parts without data, to find errors in combinations of fields."""
    make_callbacks(config)
    _schedule(config, steps_per_epoch=1000)
    _optimizer(config)
    if augment.is_mix(config.augment.ops):
        augment.parse(config.augment.ops)  # its error names the right field
    augment.check(config.augment.ops)
    if augment.parse_mix(config.augment.mix) is not None:
        augment.check(config.augment.mix)
    network = step.abstract(partial(_build, config, 10, jnp.float32))
    _fine_tuning(config, lambda: network)


def make_callbacks(config: ConfigDict) -> callbacks.Callbacks:
    """Returns the callbacks that decide between epochs, in their initial state."""
    plateau = early_stopping = None
    if config.plateau.patience:
        plateau = callbacks.Plateau(**config.plateau)
    if config.early_stopping.patience:
        early_stopping = callbacks.EarlyStopping(**config.early_stopping)
    return callbacks.Callbacks(plateau, early_stopping)


def make_selection(config: ConfigDict) -> Selection:
    """Returns the rule by which a run of this config picks the epoch that it reports."""
    curve = curve_split(config.data.val_fraction)
    return Selection(config.selected_on, config.selected_by, curve)


def resolved(config: ConfigDict) -> ConfigDict:
    """Returns a copy with dtype "auto" resolved, so that a run keeps it on another device."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.dtype = str(compute_dtype(config.dtype))
    return config.lock()


class Parts(NamedTuple):
    """The functions that a config describes, before compilation.

    Attributes:
      make_train_step: Maps the axis name of pmap, or None under jit, to a training step.
      init: Maps the seed to the state at step 0, before pretrained parameters are loaded.
      eval_step: See step.make_eval_step.
      features_step: See step.make_features_step; None for networks without a body and a head.
      tuning: The fields of `config.transfer`, applied to the network.
    """

    make_train_step: Callable[[str | None], step.TrainStep]
    init: Callable[[jax.Array], step.TrainState]
    eval_step: step.EvalStep
    features_step: step.EvalStep | None
    tuning: fine_tuning.FineTuning


def make_parts(
    config: ConfigDict,
    info: data.DatasetInfo,
    *,
    steps_per_epoch: int = 1,
    on_features: bool = False,
) -> Parts:
    """Builds the functions that initialize, train and evaluate the network.

    Args:
      config: A config that `checked` has returned.
      info: The classes, mean and std of the data set.
      steps_per_epoch: The number of steps per epoch, which only transfer.unfreeze_epochs needs.
      on_features: Whether the batches of the training and evaluation steps hold features instead
        of images.

    Raises:
      UserError: If parts of the config do not fit together.
    """
    dtype = compute_dtype(config.dtype)
    build = partial(_build, config, info.num_classes, dtype)
    tuning = _fine_tuning(config, partial(step.abstract, build))
    optimizer = _optimizer(config, tuning, steps_per_epoch)
    networks = step.split_networks(build, tuning.is_frozen)
    preprocess = partial(
        augment.preprocess,
        scaling=augment.scaling(config.augment.normalize, info.mean, info.std),
        size=config.augment.resize,
        method=config.augment.resize_method,
        dtype=dtype,
    )
    features_step = None
    if models.is_split(config.model.name):
        features_step = step.make_features_step(networks.eval, preprocess)
    forward = step.classify_images
    if on_features:
        forward, preprocess = step.classify_features, lambda features: features
    make_train_step = partial(
        step.make_train_step,
        networks.train,
        optimizer,
        augment=augment.parse(config.augment.ops),
        preprocess=preprocess,
        mix=augment.parse_mix(config.augment.mix),
        label_smoothing=config.label_smoothing,
        trains=tuning.trains,
        forward=forward,
    )
    return Parts(
        lambda axis_name: make_train_step(axis_name=axis_name),
        partial(step.init, build, optimizer, trains=tuning.trains),
        step.make_eval_step(networks.eval, preprocess, forward),
        features_step,
        tuning,
    )


def _fine_tuning(config: ConfigDict, network: Callable) -> fine_tuning.FineTuning:
    return fine_tuning.make(
        config.model.name,
        network,
        weights=config.transfer.weights,
        train=config.transfer.train,
        unfreeze_epochs=config.transfer.unfreeze_epochs,
        layer_decay=config.transfer.layer_decay,
        freeze_batch_norm=config.transfer.freeze_batch_norm,
        normalize=config.augment.normalize,
    )


def _caches_features(config: ConfigDict) -> bool:
    """Returns whether the features of every image are computed only once."""
    is_fixed = not (config.augment.ops.strip() or config.augment.mix.strip())
    return config.transfer.train == "head" and config.transfer.cache_features and is_fixed


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
      mesh: The devices to use; all local ones by default.
      make_schedule: Maps the number of steps per epoch to the schedule to use instead of the
        config's.

    Raises:
      UserError: If parts of the config do not fit together.
    """
    mesh = mesh or make_mesh()
    steps_per_epoch = count_steps(config.batch_size, len(dataset.train.labels), mesh.size)
    if config.num_epochs * steps_per_epoch >= 2**31:
        most = (2**31 - 1) // steps_per_epoch
        raise UserError(f"num_epochs must be at most {most}, got {config.num_epochs}")
    schedule = (make_schedule or partial(_schedule, config))(steps_per_epoch)
    is_cached = _caches_features(config)
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
        schedule=schedule,
        pretrained=parts.tuning.load if config.transfer.weights else None,
        parallel=config.parallel,
        loop=config.steps_per_call != 1,
        mesh=mesh,
        cuda_graph=gpu_graph.decide(config.gpu_graph),
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
        make_selection(config),
        schedule,
        make_callbacks(config),
        computed,
    )


def compute_dtype(name: str) -> jnp.dtype:
    """Returns the dtype of the computation; "auto" is float32 on CPUs and bfloat16 elsewhere."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return jnp.dtype(name)


def _build(config: ConfigDict, num_classes: int, dtype, rngs):
    options = config.model.to_dict()
    name = options.pop("name")
    image_size = config.augment.resize or models.IMAGE_SIZE
    return models.create(name, num_classes, rngs, dtype=dtype, image_size=image_size, **options)


def _schedule(config: ConfigDict, steps_per_epoch: int) -> optax.Schedule:
    create = optim.schedules.create
    return create(
        config.optim.schedule,
        config.optim.learning_rate,
        steps_per_epoch=steps_per_epoch,
        num_epochs=config.num_epochs,
        **optim.pick(config.optim, create, *optim.SCHEDULES.values()),
    )


def _optimizer(
    config: ConfigDict,
    tuning: fine_tuning.FineTuning | None = None,
    steps_per_epoch: int = 1,
) -> optax.GradientTransformation:
    options = optim.pick(config.optim, optim.create, *optim.OPTIMIZERS.values())
    optimizer = optim.create(config.optim.name, **options)
    if tuning is None or not tuning.groups:
        return optimizer
    unclipped = optim.create(config.optim.name, **options | {"clip_norm": 0.0})
    return tuning.optimizer(unclipped, config.optim.clip_norm, steps_per_epoch)
