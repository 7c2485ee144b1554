"""Masks of the weights that decay, by the values of `config.optim.weight_decay_mask`."""

from collections.abc import Callable

import jax


def kernels(params) -> dict:
    """Returns a tree of booleans that is True at the leaves named `kernel`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


MASKS: dict[str, Callable | None] = {"all": None, "kernels": kernels}
