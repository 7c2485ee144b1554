"""Transfer learning: the weights that a network starts from, and which of them train when."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import optax
from flax import nnx

from cifar_jax import models, transfer
from cifar_jax.errors import UserError, quote
from cifar_jax.optim.groups import by_group
from cifar_jax.step import TrainState
from cifar_jax.tree_paths import Path, Prefixes, is_below, join

TRAIN = ("all", "head")


class FineTuning(NamedTuple):
    """The fields of `config.transfer`, applied to one network.

    Attributes:
      name: The name of the network.
      weights: Where its parameters come from; empty for random initialization.
      groups: The prefixes of the paths of each group of layers, from the head down; empty if all
        parameters train in the same way.
      head: The prefixes of the paths of the head; empty for networks without body and head.
      only_head: Whether only the head trains.
      freeze_batch_norm: Whether BatchNorm in the body normalizes with its running statistics, and
        does not update them.
      unfreeze_epochs: For each group, the epoch at which it starts to train.
      layer_decay: The ratio of each group's learning rate to that of the next group towards the
        head.
      normalize: The normalization of the images; see config/base.py.
      fixed: The prefixes of the paths of parameters that the network itself never trains.
    """

    name: str
    weights: str
    groups: tuple[Prefixes, ...]
    head: Prefixes
    only_head: bool
    freeze_batch_norm: bool
    unfreeze_epochs: tuple[float, ...]
    layer_decay: float
    normalize: str
    fixed: Prefixes

    def trains(self, path: Path) -> bool:
        """Returns whether the parameter at a path ever trains."""
        is_chosen = not self.only_head or self.is_head(path)
        return is_chosen and not is_below(path, self.fixed)

    def adapts(self, path: Path) -> bool:
        """Returns whether the running statistics at a path ever change."""
        return not (self.only_head or self.freeze_batch_norm) or self.is_head(path)

    def is_head(self, path: Path) -> bool:
        """Returns whether the parameter or module at a path belongs to the head."""
        return is_below(path, self.head)

    def is_frozen(self, path: Path, module: nnx.Module) -> bool:
        """Returns whether a module is in evaluation mode during training. This is an nnx filter."""
        is_fixed = self.only_head or (self.freeze_batch_norm and isinstance(module, nnx.BatchNorm))
        return is_fixed and not self.is_head(path)

    def read(self, state: TrainState) -> transfer.Pretrained:
        """Returns the parameters to start from.

        Args:
          state: A state, or its shapes.

        Raises:
          UserError: If they cannot be loaded, or belong to another network.
        """
        return transfer.load(self.weights, self.name, state, self.is_head)

    def load(self, state: TrainState) -> TrainState:
        """Returns a state at step 0 with the loaded parameters, and prints where they come from.

        An average, if the state has one, starts from these parameters too.

        Raises:
          UserError: See `read`.
        """
        found = self.read(state)
        print(f"loaded {found.source}")
        for note in found.notes:
            print(f"note: {note}")
        if found.normalize not in ("", self.normalize):
            print(
                f"note: these weights expect augment.normalize {quote(found.normalize)}, "
                f"not {self.normalize!r}"
            )
        params = join(state.params, found.params)
        batch_stats = join(state.batch_stats, found.batch_stats)
        average = state.average
        if average is not None:
            # Not `params` itself: the training step donates its state, in which no buffer may occur
            # twice.
            average = {
                "params": join(average["params"], found.params),
                "batch_stats": join(average["batch_stats"], found.batch_stats),
            }
        return state.replace(params=params, batch_stats=batch_stats, average=average)

    def optimizer(
        self, optimizer: optax.GradientTransformation, clip_norm: float, steps_per_epoch: int
    ) -> optax.GradientTransformation:
        """Returns an optimizer that trains each group at its learning rate, from its epoch on.

        Args:
          optimizer: The optimizer, without clipping.
          clip_norm: Max global norm of the gradients; 0 for no clipping.
          steps_per_epoch: The number of steps per epoch.
        """
        return by_group(
            optimizer,
            self.groups,
            layer_decay=self.layer_decay,
            # At least 1 unless the epoch is 0, whatever steps_per_epoch is: the structure of the
            # optimizer's state depends on which groups are delayed.
            first_steps=[
                round(min(max(epoch * steps_per_epoch, 1), 2**31 - 1)) if epoch else 0
                for epoch in self.unfreeze_epochs
            ],
            clip_norm=clip_norm,
        )


def make(
    name: str,
    network: nnx.Module,
    *,
    weights: str,
    train: str,
    unfreeze_epochs: Sequence[float],
    layer_decay: float,
    freeze_batch_norm: bool,
    normalize: str,
) -> FineTuning:
    """Applies the fields of `config.transfer` to a network.

    Args:
      name: The name of the network, for messages.
      network: The network, which may have shapes in place of arrays.
      weights: See config/base.py.
      train: One of TRAIN.
      unfreeze_epochs: See config/base.py.
      layer_decay: See config/base.py.
      freeze_batch_norm: See config/base.py.
      normalize: The field of `config.augment`.

    Raises:
      UserError: If a field is invalid, does not fit the others, or needs a network with a body and
        a head.
    """
    unfreeze_epochs = tuple(unfreeze_epochs)
    settings = {
        "weights": weights,
        "train": "head" if train == "head" else "",
        "unfreeze_epochs": unfreeze_epochs,
        "layer_decay": layer_decay if layer_decay != 1 else "",
        "freeze_batch_norm": freeze_batch_norm,
    }
    settings = {field: value for field, value in settings.items() if value}
    if not 0 < layer_decay <= 1:
        raise UserError(f"transfer.layer_decay must be in (0, 1], got {layer_decay}")
    _check_settings(name, settings)
    has_groups = {"unfreeze_epochs", "layer_decay"} & settings.keys()
    groups = network.groups() if has_groups else ()
    _check_epochs(unfreeze_epochs, len(groups))
    epochs = unfreeze_epochs or (0,)
    return FineTuning(
        name=name,
        weights=weights,
        groups=groups,
        head=network.head_paths() if settings else (),
        only_head=train == "head",
        freeze_batch_norm=freeze_batch_norm,
        unfreeze_epochs=epochs + epochs[-1:] * (len(groups) - len(epochs)),
        layer_decay=layer_decay,
        normalize=normalize,
        fixed=network.frozen_paths() if hasattr(network, "frozen_paths") else (),
    )


def _check_settings(name: str, settings: Mapping[str, Any]) -> None:
    """Raises UserError if the fields that are set do not fit the network or each other."""
    if settings and not models.is_split(name):
        (field, value), *_ = settings.items()
        others = ", ".join(filter(models.is_split, models.MODELS))
        raise UserError(
            f"transfer.{field} {value!r} needs a network with a body and a head, such as "
            f"{others}; {name} is not one of them"
        )
    if "freeze_batch_norm" in settings and "weights" not in settings:
        raise UserError(
            "transfer.freeze_batch_norm needs transfer.weights: the initial running statistics, "
            "mean 0 and variance 1, would never change"
        )
    if "train" not in settings:
        return
    if "weights" not in settings:
        raise UserError(
            "transfer.train 'head' needs transfer.weights: a random body would stay random"
        )
    for field in ("unfreeze_epochs", "layer_decay"):
        if field in settings:
            raise UserError(
                f"transfer.{field} needs transfer.train 'all', got 'head', which is only one group "
                "of layers"
            )


def _check_epochs(epochs: tuple[float, ...], num_groups: int) -> None:
    if epochs and (epochs[0] != 0 or list(epochs) != sorted(epochs)):
        raise UserError(
            f"transfer.unfreeze_epochs must start with 0 and never decrease, got {epochs}"
        )
    if len(epochs) > num_groups > 0:
        raise UserError(
            f"transfer.unfreeze_epochs has {len(epochs)} epochs, but the network has only "
            f"{num_groups} groups of layers: {epochs}"
        )
