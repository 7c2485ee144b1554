"""Selects arrays of a network by their paths in the nested dict that holds them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

# The path of an array or module in a network, such as ("layers", 18, "kernel"), and the prefixes of
# such paths.
Path = tuple[str | int, ...]
Prefixes = Sequence[Path]


def is_below(path: Path, prefixes: Prefixes) -> bool:
    """Returns whether a path starts with one of the prefixes."""
    return any(path[: len(prefix)] == prefix for prefix in prefixes)


def everything(path: Path) -> bool:
    """Returns True for every path."""
    del path
    return True


def split(tree: Any, is_chosen: Callable[[Path], bool]) -> tuple[Any, Any]:
    """Returns the chosen leaves of a nested dict, and the others, as two nested dicts."""
    leaves = flatten_dict(tree)
    chosen, others = (
        {path: leaf for path, leaf in leaves.items() if is_chosen(path) == wanted}
        for wanted in (True, False)
    )
    return unflatten_dict(chosen), unflatten_dict(others)


def join(tree: Any, others: Any) -> Any:
    """Returns a nested dict with the leaves of both; where both have one, that of `others`."""
    return unflatten_dict(flatten_dict(tree) | flatten_dict(others))


def map_by_path(function: Callable[[Path, Any], Any], tree: Any) -> Any:
    """Returns the nested dict of function(path, leaf) for each leaf of a nested dict."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(tuple(entry.key for entry in path), leaf), tree
    )
