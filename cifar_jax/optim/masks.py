"""Masks of the weights that decay, by the values of `config.optim.weight_decay_mask`."""

from collections.abc import Callable

from cifar_jax.tree_paths import map_by_path


def kernels(params) -> dict:
    """Returns a tree of booleans that is True at the leaves named `kernel`."""
    return map_by_path(lambda path, _: path[-1] == "kernel", params)


MASKS: dict[str, Callable | None] = {"all": None, "kernels": kernels}
