"""Reads and writes safetensors files, which hold named arrays and a dict of strings, but no code.

The format is specified at https://huggingface.co/docs/safetensors. The files that this suite
exports have its own parameter paths as names, joined by dots, as in "blocks.1.conv1.kernel" and
"blocks.1.bn1.mean", and `FORMAT` as the value of "format" in their metadata.
"""

from collections.abc import Mapping
from pathlib import Path

import ml_dtypes
import numpy as np

from cifar_jax.errors import UserError
from cifar_jax.run import atomic
from cifar_jax.transfer.packages import needing

FORMAT = "cifar_jax"
# The dtypes of weights, by their names in the file. The others hold integers or are quantized.
_DTYPES = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,  # the step counters of PyTorch's BatchNorm
}


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Returns the arrays of a file by name, and its metadata.

    Raises:
      UserError: If the file cannot be read or is damaged, if an array has a dtype that weights do
        not have, or if the package safetensors is not installed.
    """
    with needing("reading a safetensors file"):
        import safetensors
    try:
        content = path.read_bytes()
        entries = safetensors.deserialize(content)  # copies
        del content
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is truncated or damaged: {error}") from error
    tensors = {}
    for name, entry in entries:
        if entry["dtype"] not in _DTYPES:
            raise UserError(
                f"{path}: {name} has dtype {entry['dtype']}, but weights must be one of "
                f"{', '.join(_DTYPES)}"
            )
        values = np.frombuffer(entry["data"], _DTYPES[entry["dtype"]])
        tensors[name] = values.reshape(entry["shape"])
    return tensors, metadata


def write(path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """Writes a file atomically.

    Args:
      path: The file, which is replaced if it exists.
      tensors: The arrays by name.
      metadata: Strings that describe them; "format" is set to FORMAT.

    Raises:
      UserError: If the package safetensors is not installed.
      OSError: If the file cannot be written.
    """
    with needing("writing a safetensors file"):
        from safetensors.numpy import save
    # `save` ignores strides: without this, a transposed array would be written untransposed.
    contiguous = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    with atomic.replacing(path) as part:
        part.write_bytes(save(contiguous, {**metadata, "format": FORMAT}))
