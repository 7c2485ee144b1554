"""Formats the parameters of a network as a table that fits on a screen."""

import dataclasses
from collections import defaultdict
from typing import Any

import jax
from clu import parameter_overview

MAX_ROWS = 24


@dataclasses.dataclass
class _Block:
    """A row of the table; clu takes the titles of its columns from the fields."""

    name: str
    arrays: int
    size: int


def table(params: dict[str, Any], max_rows: float = MAX_ROWS) -> str:
    """Returns a table of a network's parameters, with the blocks of a deep network as one row each.

    Args:
      params: A tree of arrays.
      max_rows: If there are more arrays than this, the arrays of a block share a row. The blocks
        are the smallest ones that fit into this many rows or, if none fit, the largest ones.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if len(leaves) <= max_rows:
        return parameter_overview.get_parameter_overview(params, include_stats=False)
    paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    sizes = [leaf.size for _, leaf in leaves]
    for depth in range(max(path.count("/") for path in paths), 0, -1):
        blocks: dict[str, list[int]] = defaultdict(list)
        for path, size in zip(paths, sizes, strict=True):
            blocks["/".join(path.split("/")[:depth])].append(size)
        if len(blocks) <= max_rows:
            break
    rows = [_Block(name, len(block), sum(block)) for name, block in blocks.items()]
    total = f"Total: {sum(sizes):,} (--all_parameters prints a row for each array)"
    return f"{parameter_overview.make_table(rows)}\n{total}"
