"""Finds the tensor for each of our arrays, and converts it to our axes.

| array | ours | Keras | PyTorch |
|---|---|---|---|
| convolution | kernel [h, w, I, O] | kernel, the same | weight [O, I, h, w] |
| depthwise | kernel [h, w, 1, I] | depthwise_kernel [h, w, I, 1] | weight [I, 1, h, w] |
| dense layer | kernel [I, O] | kernel, the same | weight [O, I] |
| first dense layer of a VGG | kernel [h w C, O] | kernel, the same | weight [O, C h w] |
| scale and bias of BatchNorm | scale, bias | gamma, beta | weight, bias |
| its running statistics | mean, var | moving_mean, moving_variance | running_mean, running_var |

BatchNorm divides by sqrt(var + eps), and our networks have the eps of the library. The exception is
timm's port of Xception: its eps is 1e-5; Keras's and ours is 1e-3. The difference is subtracted
from the running variances. The port also pads its max-pools on both sides, so its features equal
ours only if the input of every max-pool has an odd size, as for images of 71 x 71 pixels.
"""

import json
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from cifar_jax import models, step
from cifar_jax.errors import UserError
from cifar_jax.transfer import names
from cifar_jax.transfer.names import Path
from cifar_jax.transfer.weight_file import Weights

Shape = tuple[int, ...]
_KERAS = {"kernel": "kernel", "scale": "gamma", "mean": "moving_mean", "var": "moving_variance"}
_TORCH = {"kernel": "weight", "scale": "weight", "bias": "bias"}
_TORCH |= {"mean": "running_mean", "var": "running_var"}
# Prefixes of the tensors of heads, and the end of the names of PyTorch's step counters.
_TORCH_HEADS = ("classifier.", "fc.", "head.", "pre_logits.")
_TORCH_COUNTER = "num_batches_tracked"
_XCEPTION_EPS, _TIMM_EPS = 1e-3, 1e-5


class Source(NamedTuple):
    """Where an array of ours comes from.

    Attributes:
      name: The name of the tensor in the file.
      convert: Maps the tensor to our axes; raises ValueError if the number of axes differs.
    """

    name: str
    convert: Callable[[np.ndarray], np.ndarray]


def sources(weights: Weights, model_name: str, shapes: Mapping[Path, Shape]) -> dict[Path, Source]:
    """Returns the source of each array that has a counterpart in the layout of the file.

    Args:
      weights: The contents of the file.
      model_name: The network's name in cifar_jax.models.
      shapes: The shapes of the network's parameters and statistics.

    Raises:
      UserError: If the library that the file is from lacks the network, or has a different variant.
    """
    if weights.layout == "keras":
        return _keras(names.keras(model_name, shapes, list(weights.tensors)), shapes)
    if weights.layout == "torch":
        prefixes = names.torchvision(model_name, shapes, list(weights.tensors))
        extra_eps = _XCEPTION_EPS - _TIMM_EPS if model_name == "xception" else 0.0
        return _torch(prefixes, shapes, extra_eps)
    return {path: Source(".".join(map(str, path)), _unchanged) for path in shapes}


def is_counter(weights: Weights, name: str) -> bool:
    """Returns whether a tensor counts steps, so that it holds no weights."""
    return weights.layout == "torch" and name.endswith(_TORCH_COUNTER)


def of_head(weights: Weights, unknown: Collection[str]) -> list[str]:
    """Returns those of the `unknown` tensors that belong to the head of the network in the file.

    Args:
      weights: The contents of the file.
      unknown: The names of the tensors that our network lacks.

    Raises:
      UserError: If the file is this suite's own, and describes no network.
    """
    if not unknown:
        return []
    if weights.layout == "keras":
        return [name for name in unknown if _is_keras_dense(weights, name)]
    prefixes = _TORCH_HEADS if weights.layout == "torch" else _own_head(weights)
    return [name for name in unknown if name.startswith(prefixes)]


def _is_keras_dense(weights: Weights, name: str) -> bool:
    kernel = weights.tensors.get(f"{name.rpartition('/')[0]}/kernel")
    return kernel is not None and kernel.ndim == 2


def _own_head(weights: Weights) -> tuple[str, ...]:
    """Returns the prefixes of the head's tensors in a file of this suite, which describes it."""
    options = json.loads(weights.metadata.get("model", "{}"))
    name = options.pop("name", None)
    try:
        if name is None or not models.is_split(name):
            return ()
        # The head does not depend on the sizes, and 32 pixels may be too few for the body.
        sizes = dict(num_classes=1, image_size=1024)
        network = step.abstract(lambda rngs: models.create(name, rngs=rngs, **sizes, **options))
    except (UserError, TypeError) as error:  # TypeError: an option is an argument of `create`
        raise UserError(f"{weights.source} describes no network of this suite: {error}") from error
    return tuple(".".join(map(str, path)) + "." for path in network.head_paths())


def _keras(prefixes: names.Names, paths: Collection[Path]) -> dict[Path, Source]:
    result = {}
    for path in paths:
        *owner, leaf = path
        layer = tuple(owner)
        if layer in prefixes:
            is_norm = (*layer, "scale") in paths
            role = _KERAS.get(leaf, "beta" if is_norm else "bias")
            convert = _from_depthwise if layer[-1] == "depthwise" else _unchanged
            result[path] = Source(prefixes[layer] + role, convert)
    return result


def _torch(
    prefixes: names.Names, shapes: Mapping[Path, Shape], extra_eps: float
) -> dict[Path, Source]:
    result = {}
    for path, shape in shapes.items():
        *owner, leaf = path
        layer = tuple(owner)
        if layer in prefixes:
            if leaf == "var":
                convert = partial(_with_eps, extra_eps=extra_eps)
            else:
                channels = _channels(shapes, path)
                convert = partial(_from_torch, num_axes=len(shape), channels=channels)
            result[path] = Source(prefixes[layer] + _TORCH[leaf], convert)
    return result


def _channels(shapes: Mapping[Path, Shape], path: Path) -> int:
    """Returns the number of channels of a VGG's body if `path` is its first dense layer, else 0."""
    convs = [p for p, shape in shapes.items() if p[0] == "layers" and len(shape) == 4]
    denses = [p for p, shape in shapes.items() if p[0] == "layers" and len(shape) == 2]
    first = min(denses, default=("dense", "kernel"))
    return shapes[max(convs)][-1] if convs and path == first else 0


def _unchanged(array: np.ndarray) -> np.ndarray:
    return array


def _from_depthwise(array: np.ndarray) -> np.ndarray:
    return array.transpose(0, 1, 3, 2)


def _with_eps(variance: np.ndarray, extra_eps: float) -> np.ndarray:
    return variance - extra_eps


def _from_torch(array: np.ndarray, num_axes: int, channels: int) -> np.ndarray:
    if num_axes == 2 and channels and array.ndim == 2:
        # PyTorch flattens channels, rows, columns; we flatten rows, columns, channels.
        array = array.reshape(len(array), channels, 1, -1)
    if array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
        # In timm, the dense layers of VGGs are convolutions.
        return array.reshape(-1, array.shape[-1]) if num_axes == 2 else array
    return array.T
