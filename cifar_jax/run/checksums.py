"""Checksums of the arrays and of the JSON values in a checkpoint.

TensorStore checks its index, but not the compressed chunks of the arrays: a flipped bit in one of
them would be restored without notice.
"""

import json
import zlib
from typing import Any

import jax
import numpy as np

from cifar_jax.runtime.distributed import is_key


def of_arrays(tree: Any) -> dict[str, int]:
    """Returns the CRC-32 of the bytes of every array, by the array's path in the tree.

    Args:
      tree: Tree of NumPy arrays, or of JAX arrays that are replicated on all devices.
    """
    return {name: _crc(on_host(leaf)) for name, leaf in named(tree).items()}


def named(tree: Any) -> dict[str, Any]:
    """Returns the leaves of a tree by their paths, such as "state/params/conv/kernel"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def of_json(value: Any) -> int:
    """Returns the CRC-32 of a JSON value, which does not depend on the order of its keys."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def on_host(array: np.ndarray | jax.Array) -> np.ndarray:
    """Returns an array's values, without a copy on CPUs; typed keys become their raw data."""
    if not isinstance(array, jax.Array):
        return array
    if is_key(array):
        array = jax.random.key_data(array)
    # The shard shares the buffer. If the array itself were converted, it would cache the NumPy
    # array, and training could no longer donate the buffer.
    return np.asarray(array.addressable_data(0))


def _crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
