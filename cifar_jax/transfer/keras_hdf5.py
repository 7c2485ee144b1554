"""Reads weights in Keras's legacy HDF5 layout, in which keras.applications publishes them.

The file, or its group "model_weights" in a file that holds a whole model, has the attribute
`layer_names`. Each layer is a group with the attribute `weight_names`, which lists the paths of its
arrays in the order of `layer.weights`. The paths themselves differ between versions of Keras:
"block1_conv1_W_1:0", "block1_conv1/kernel:0", "block1_conv1/kernel". The role of an array is
therefore inferred from its position and from the shapes in its layer.
"""

from pathlib import Path
from typing import Any

import numpy as np

from cifar_jax.errors import UserError
from cifar_jax.transfer.packages import needing

SIGNATURE = b"\x89HDF\r\n\x1a\n"
# {numbers of axes of the arrays in a layer: their roles}. A SeparableConv2D has two kernels.
_ROLES = {
    (4,): ("kernel",),
    (2,): ("kernel",),
    (4, 1): ("kernel", "bias"),
    (2, 1): ("kernel", "bias"),
    (4, 4): ("depthwise_kernel", "pointwise_kernel"),
    (4, 4, 1): ("depthwise_kernel", "pointwise_kernel", "bias"),
    (1, 1, 1, 1): ("gamma", "beta", "moving_mean", "moving_variance"),
}


def read(path: Path) -> dict[str, np.ndarray]:
    """Returns {"block1_conv1/kernel": array, ...}, in the order of the layers in the file.

    Raises:
      UserError: If the file is damaged or has a different layout, or if the package h5py is not
        installed.
    """
    with needing("reading an HDF5 file"):
        import h5py
    try:
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            layer_names = _strings(group, "layer_names")
            if not layer_names:
                raise UserError(f"{path} is not in Keras's legacy HDF5 layout: {_hint(file)}")
            tensors = {}
            for layer in layer_names:
                arrays = {
                    name: _array(path, group[layer], f"{layer}/{name}", name)
                    for name in _strings(group[layer], "weight_names")
                }
                tensors |= _named(path, layer, arrays)
            return tensors
    except UserError:
        raise
    # What h5py raises for truncated and damaged files.
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).strip("'\"")
        raise UserError(f"{path} is truncated or damaged: {reason}") from error


def _strings(group: Any, name: str) -> list[str]:
    """Returns an attribute, a list of strings; Keras splits long ones in name0, name1, etc."""
    if name in group.attrs:
        values = list(group.attrs[name])
    else:
        values, part = [], 0
        while f"{name}{part}" in group.attrs:
            values += list(group.attrs[f"{name}{part}"])
            part += 1
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _array(path: Path, layer: Any, where: str, name: str) -> np.ndarray:
    dataset = layer[name]
    # A file can refer to the contents of others, or claim a size that fills the memory.
    is_elsewhere = (
        dataset.file.filename != layer.file.filename or dataset.is_virtual or dataset.external
    )
    if is_elsewhere or dataset.nbytes > path.stat().st_size:
        raise UserError(f"{path}: {where} is not stored in the file itself, or is compressed")
    return dataset[()]


def _named(path: Path, layer: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if not arrays:  # such as a pooling layer
        return {}
    roles = _ROLES.get(tuple(array.ndim for array in arrays.values()))
    if roles is None:
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise UserError(
            f"{path}: {layer} is not a convolution, a dense layer or a BatchNormalization with "
            f"scale and center: it holds {shapes}"
        )
    return {f"{layer}/{role}": array for role, array in zip(roles, arrays.values(), strict=True)}


def _hint(file: Any) -> str:
    if "layers" in file or "_layer_checkpoint_dependencies" in file:
        return "it is a .weights.h5 file of Keras 3. Save the model with model.save('model.h5')"
    inside = ", ".join(list(file)[:3]) or "nothing"
    return f"it lacks the attribute layer_names, and holds {inside}"
