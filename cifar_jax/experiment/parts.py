"""Builds the functions that a config describes: network, schedule, optimizer and steps."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from cifar_jax import augment, data, models, optim, step
from cifar_jax.errors import UserError
from cifar_jax.optim import callbacks, muon, parameter_groups
from cifar_jax.optim.parameter_groups import ParameterGroups
from cifar_jax.transfer import fine_tuning
from cifar_jax.tree_paths import Path, join

MakeTrainStep = Callable[[str | None], step.TrainStep]


class Parts(NamedTuple):
    """The functions that a config describes, before compilation.

    Attributes:
      make_train_step: Maps the axis name of pmap, or None under jit, to a training step.
      later: {epoch: make_train_step}, the training steps that replace the first one, each from its
        epoch on, counted from 0.
      init: Maps the seed to the state at step 0, before pretrained parameters are loaded.
      fit_to_images: Maps the state at step 0 and training images [N, H, W, C] uint8 to the state to
        start from, unless pretrained parameters are loaded; None if that does not depend on the
        images.
      eval_step: See step.make_eval_step.
      features_step: See step.make_features_step; None for networks without a body and a head.
      tuning: The fields of `config.transfer`, applied to the network.
    """

    make_train_step: MakeTrainStep
    later: dict[int, MakeTrainStep]
    init: Callable[[jax.Array], step.TrainState]
    fit_to_images: Callable[[step.TrainState, jax.Array], step.TrainState] | None
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
    build = partial(build_network, config, info.num_classes, dtype)
    network = step.abstract(build)
    tuning = build_fine_tuning(config, network)
    groups = build_groups(config, network, tuning)
    optimizer = build_optimizer(config, tuning, steps_per_epoch, groups)
    networks = step.split_networks(build, tuning.is_frozen)
    preprocess_to = partial(
        augment.preprocess,
        scaling=augment.scaling(config.augment.normalize, info.mean, info.std),
        method=config.augment.resize_method,
        dtype=dtype,
    )
    preprocess = partial(preprocess_to, size=config.augment.resize)
    features_step = None
    if models.is_split(config.model.name):
        features_step = step.make_features_step(networks.eval, preprocess)
    forward = step.classify_images
    if on_features:
        forward, preprocess = step.classify_features, lambda features: features
    forward = _with_checked_logits(forward, config.model.name, info.num_classes)
    averaging = build_averaging(config, steps_per_epoch)
    make_train_step = partial(
        step.make_train_step,
        networks.train,
        optimizer,
        augment=augment.parse(config.augment.ops),
        mix=augment.parse_mix(config.augment.mix),
        label_smoothing=config.label_smoothing,
        trains=tuning.trains,
        adapts=tuning.adapts,
        forward=forward,
        sam_rho=config.optim.sam_rho,
        pulls_back=averaging is not None and averaging.pulls_back,
        group_index=groups and groups.index,
        rescale=build_rescale(config, groups),
    )

    def at(preprocess: step.Preprocess) -> MakeTrainStep:
        return lambda axis_name: make_train_step(preprocess=preprocess, axis_name=axis_name)

    epochs = (0, *config.augment.train_size_epochs)
    by_epoch = {
        epoch: at(partial(preprocess_to, size=size))
        for epoch, size in zip(epochs, config.augment.train_sizes, strict=False)
    } or {0: at(preprocess)}
    views = partial(augment.make_views, count=config.augment.views)
    return Parts(
        by_epoch.pop(0),
        by_epoch,
        partial(step.init, build, optimizer, trains=tuning.trains, averages=averaging is not None),
        _fit_to_images(network, preprocess) if hasattr(network, "whiten") else None,
        step.make_eval_step(
            networks.eval, preprocess, forward, views if config.augment.views > 1 else None
        ),
        features_step,
        tuning,
    )


def _with_checked_logits(forward: step.Forward, name: str, num_classes: int) -> step.Forward:
    """Returns a function that raises UserError if the logits are not one per image and class.

    Otherwise, a loss could be computed from logits of another shape, and mean nothing.
    """

    def checked_forward(model: nnx.Module, inputs: jax.Array, rngs: nnx.Rngs | None) -> jax.Array:
        logits = forward(model, inputs, rngs)
        # In an exported program, the number of images is a symbol.
        found, expected = (
            getattr(logits, "shape", type(logits).__name__),
            (inputs.shape[0], num_classes),
        )
        if found != expected:
            raise UserError(
                f"the network {name} returns {found} for {expected[0]} images of {num_classes} "
                f"classes, not logits of shape {expected}"
            )
        return logits

    return checked_forward


def _fit_to_images(
    network: nnx.Module, preprocess: step.Preprocess
) -> Callable[[step.TrainState, jax.Array], step.TrainState]:
    """Returns Parts.fit_to_images of a network with a whitening layer; see models/__init__.py."""

    def fit_to_images(state: step.TrainState, images: jax.Array) -> step.TrainState:
        found = network.whiten(preprocess(images).astype(jnp.float32))
        state = state.replace(params=join(state.params, found))
        if state.average is None:
            return state
        average = state.average | {"params": join(state.average["params"], found)}
        return state.replace(average=average)

    return fit_to_images


def build_fine_tuning(config: ConfigDict, network: nnx.Module) -> fine_tuning.FineTuning:
    """Applies the fields of `config.transfer` to a network; see fine_tuning.make.

    Args:
      config: The config.
      network: The network, which may hold shapes instead of arrays.

    Raises:
      UserError: If they are invalid, or need another network.
    """
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


def compute_dtype(name: str, platform: str | None = None) -> jnp.dtype:
    """Returns the dtype of the computation; "auto" is float32 on CPUs and bfloat16 elsewhere.

    Args:
      name: The config's dtype.
      platform: "cpu", "gpu" or another; that of the default device if None.
    """
    if name == "auto":
        platform = platform or jax.default_backend()
        name = "float32" if platform == "cpu" else "bfloat16"
    return jnp.dtype(name)


def build_network(config: ConfigDict, num_classes: int, dtype: jnp.dtype, rngs) -> nnx.Module:
    """Builds the network from its random streams; see models.create.

    Raises:
      UserError: If one of its options is invalid.
    """
    options = config.model.to_dict()
    name = options.pop("name")
    image_size = config.augment.resize or models.IMAGE_SIZE
    return models.create(name, num_classes, rngs, dtype=dtype, image_size=image_size, **options)


def build_schedule(config: ConfigDict, steps_per_epoch: int) -> optax.Schedule:
    """Returns the function that maps the step to the learning rate.

    Raises:
      UserError: If a field of the schedule is invalid.
    """
    create = optim.schedules.create
    return create(
        config.optim.schedule,
        config.optim.learning_rate,
        steps_per_epoch=steps_per_epoch,
        num_epochs=config.num_epochs,
        **optim.pick(config.optim, create, *optim.SCHEDULES.values()),
    )


def build_learning_rates(
    config: ConfigDict,
    schedule: optax.Schedule,
    steps_per_epoch: int,
    *,
    only_ratios: bool = False,
) -> Callable[[int], jax.Array]:
    """Returns the function that maps the step to the learning rates of all groups of parameters.

    Without `config.optim.groups`, this is the schedule itself. See parameter_groups.combine.

    Raises:
      UserError: If a field of a group is invalid.
    """
    groups = parameter_groups.parse(config.optim.groups, config.optim)
    if not groups:
        return schedule
    return parameter_groups.combine(
        schedule,
        groups,
        steps_per_epoch=steps_per_epoch,
        num_epochs=config.num_epochs,
        only_ratios=only_ratios,
    )


def build_groups(
    config: ConfigDict, network: nnx.Module, tuning: fine_tuning.FineTuning
) -> ParameterGroups | None:
    """Assigns the network's parameters to the groups of `config.optim.groups`, if there are any.

    Raises:
      UserError: If the text is invalid, or does not fit the network or `config.transfer`.
    """
    groups = parameter_groups.parse(config.optim.groups, config.optim)
    if not groups:
        return None
    if tuning.groups:
        raise UserError(
            "optim.groups cannot be combined with transfer.layer_decay or transfer.unfreeze_epochs"
        )
    groups = [group._replace(fields=_with_dtype(group.fields, config)) for group in groups]
    paths = flatten_dict(nnx.to_pure_dict(nnx.state(network, nnx.Param)))
    return parameter_groups.assign(groups, filter(tuning.trains, paths))


def _with_dtype(fields: Mapping[str, Any], config: ConfigDict) -> dict[str, Any]:
    """Returns fields of an optimizer with newton_schulz_dtype "auto" resolved."""
    fields = dict(fields)
    if fields.get("newton_schulz_dtype") == "auto":
        fields["newton_schulz_dtype"] = str(compute_dtype(config.dtype))
    return fields


def build_rescale(
    config: ConfigDict, groups: ParameterGroups | None
) -> Callable[[Any], Any] | None:
    """Returns the function that rescales the kernels that muon trains, or None if it is not set.

    Raises:
      UserError: If muon trains no kernels.
    """
    if not config.optim.rescale_kernels:
        return None

    def uses_muon(path: Path) -> bool:
        return config.optim.name == "muon" if groups is None else groups.uses("muon", path)

    if not any(map(uses_muon, groups.indices if groups else [()])):
        raise UserError(
            "optim.rescale_kernels needs optim.name 'muon', or a line in optim.groups with "
            "name='muon'"
        )
    return partial(muon.rescaled, is_chosen=uses_muon)


def build_optimizer(
    config: ConfigDict,
    tuning: fine_tuning.FineTuning | None = None,
    steps_per_epoch: int = 1,
    groups: ParameterGroups | None = None,
) -> optax.GradientTransformation:
    """Returns the optimizer, for a learning rate of 1.

    Args:
      config: The config.
      tuning: The groups of layers that train in different ways, if there are any.
      steps_per_epoch: The number of steps per epoch.
      groups: The groups of parameters with their own optimizers, if there are any.

    Raises:
      UserError: If a field of the optimizer is invalid.
    """
    fields = _with_dtype(config.optim, config)
    options = optim.pick(fields, optim.create, *optim.OPTIMIZERS.values())
    optimizer = optim.create(config.optim.name, **options)
    if groups is not None:
        return groups.create_optimizer(config.optim.clip_norm)
    if tuning is None or not tuning.groups:
        return optimizer
    unclipped = optim.create(config.optim.name, **options | {"clip_norm": 0.0})
    return tuning.optimizer(unclipped, config.optim.clip_norm, steps_per_epoch)


def build_averaging(config: ConfigDict, steps_per_epoch: int) -> optim.averaging.Averaging | None:
    """Returns the average of parameters and statistics that a config asks for, or None.

    Raises:
      UserError: If a field is out of range, or both kinds of average are set.
    """
    if config.ema.decay and config.lookahead.every:
        raise UserError("set only one of ema.decay and lookahead.every")
    if config.ema.decay:
        return optim.averaging.ema(config.ema.decay)
    if config.lookahead.every:
        return optim.averaging.lookahead(
            config.lookahead.every,
            config.lookahead.decay,
            config.lookahead.power,
            num_steps=config.num_epochs * steps_per_epoch,
        )
    return None


def make_callbacks(config: ConfigDict) -> callbacks.Callbacks:
    """Returns the callbacks that decide between epochs, in their initial state."""
    plateau = early_stopping = None
    if config.plateau.patience:
        plateau = callbacks.Plateau(**config.plateau)
    if config.early_stopping.patience:
        early_stopping = callbacks.EarlyStopping(**config.early_stopping)
    return callbacks.Callbacks(plateau, early_stopping)


def caches_features(config: ConfigDict) -> bool:
    """Returns whether the features of every image are computed only once."""
    is_fixed = not (config.augment.ops.strip() or config.augment.mix.strip())
    is_fixed &= config.augment.views == 1
    return config.transfer.train == "head" and config.transfer.cache_features and is_fixed
