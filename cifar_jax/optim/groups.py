"""Trains each group of layers at its own learning rate, starting at its own step."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cifar_jax.tree_paths import Path, Prefixes, is_below, map_by_path


def by_group(
    optimizer: optax.GradientTransformation,
    groups: Sequence[Prefixes],
    *,
    layer_decay: float,
    first_steps: Sequence[int],
    clip_norm: float = 0.0,
) -> optax.GradientTransformation:
    """Returns the optimizer applied to each group of layers separately.

    Args:
      optimizer: The optimizer, without clipping.
      groups: The prefixes of the paths of each group's parameters, from the head down. Every
        parameter belongs to one group.
      layer_decay: The ratio of each group's learning rate to that of the next group towards the
        head.
      first_steps: For each group, the number of steps before it starts to train.
      clip_norm: Max global norm of the gradients of the groups that train; 0 for no clipping.
    """

    def index(path: Path) -> int:
        found = [i for i, prefixes in enumerate(groups) if is_below(path, prefixes)]
        if len(found) != 1:
            raise ValueError(f"{path} is in {len(found)} groups of layers")
        return found[0]

    indices = partial(map_by_path, lambda path, _: index(path))

    def each(transform_of) -> optax.GradientTransformation:
        return optax.partition({i: transform_of(i) for i in range(len(groups))}, indices)

    transforms = []
    if clip_norm:
        transforms += [
            each(lambda i: delayed(optax.identity(), first_steps[i])),
            optax.clip_by_global_norm(clip_norm),
        ]
    transforms.append(
        each(lambda i: optax.chain(delayed(optimizer, first_steps[i]), optax.scale(layer_decay**i)))
    )
    return optax.chain(*transforms)


class DelayedState(NamedTuple):
    """The state of `delayed`.

    Attributes:
      count: [] int32, the number of steps done.
      inner: The state of the wrapped optimizer.
    """

    count: jax.Array
    inner: Any


def delayed(
    optimizer: optax.GradientTransformation, first_step: int
) -> optax.GradientTransformation:
    """Returns an optimizer that keeps its initial state and returns zero updates at first.

    With optax.conditionally_mask, which uses lax.cond, a GPU would wait for the host at every step.

    Args:
      optimizer: The optimizer.
      first_step: The number of steps before it starts.
    """
    if not first_step:
        return optimizer

    def init(params):
        return DelayedState(jnp.zeros((), jnp.int32), optimizer.init(params))

    def update(updates, state, params=None):
        has_begun = state.count >= first_step
        updates, inner = optimizer.update(updates, state.inner, params)
        updates, inner = jax.tree.map(
            lambda new, old: jnp.where(has_begun, new, old),
            (updates, inner),
            (optax.tree.zeros_like(updates), state.inner),
        )
        return updates, DelayedState(state.count + 1, inner)

    return optax.GradientTransformation(init, update)
