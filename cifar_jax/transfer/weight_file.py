"""Reads a file of weights, whatever its extension. Pickles are refused: they can run code."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar_jax.errors import UserError
from cifar_jax.transfer import keras_hdf5, safetensors_file

_NEEDED = "weights are read from HDF5 (.h5) and safetensors (.safetensors) files"
_CONVERT = "docs/transfer.md shows how to convert one"


class Weights(NamedTuple):
    """Named arrays from a file or from a checkpoint.

    Attributes:
      source: Where they are from, for messages.
      layout: "keras", "torch", or "cifar_jax" for this suite's own names and shapes.
      tensors: The arrays by name.
      metadata: The strings that describe them.
    """

    source: str
    layout: str
    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]


def read(path: Path) -> Weights:
    """Returns the contents of a file.

    Raises:
      UserError: If it does not exist, is damaged, or is not in a known format.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except (OSError, ValueError) as error:  # ValueError: the path holds a NUL byte
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read: {reason}") from error
    if start.startswith(keras_hdf5.SIGNATURE):
        return Weights(str(path), "keras", keras_hdf5.read(path), {})
    if start[5:] == b"\0\0\0{":  # the length of the header, and the header, which is JSON
        tensors, metadata = safetensors_file.read(path)
        is_own = metadata.get("format") == safetensors_file.FORMAT
        return Weights(str(path), safetensors_file.FORMAT if is_own else "torch", tensors, metadata)
    if start.startswith(b"PK\x03\x04"):
        raise UserError(
            f"{path} is a ZIP archive, like PyTorch's .pth and Keras's .keras files; {_NEEDED}. "
            f"The former hold pickles, which can run code; {_CONVERT}"
        )
    if start[:1] == b"\x80":
        raise UserError(f"{path} is a pickle, which can run code; {_NEEDED}; {_CONVERT}")
    kind = "is empty" if not start else "is neither HDF5 nor safetensors"
    raise UserError(f"{path} {kind}, or damaged; {_NEEDED}")
