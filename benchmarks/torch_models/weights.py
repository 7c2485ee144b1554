"""Copies parameters from the networks in cifar_jax.models to their PyTorch versions."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flax.traverse_util import flatten_dict
from torch import nn

# {name of an array: its name in PyTorch}, where the two differ.
_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


def to_state_dict(arrays: Mapping[str, Any], module: nn.Module) -> dict[str, torch.Tensor]:
    """Converts a tree of cifar_jax (params, batch_stats or gradients) to PyTorch.

    Args:
      arrays: A nested dict. Convolution kernels are [h, w, I, O], dense kernels [I, O].
      module: The PyTorch version of the network, which is not modified.

    Returns:
      A dict from names in module.state_dict() to tensors. Convolution weights are [O, I, h, w],
      dense weights [O, I].
    """
    state = {}
    for path, array in flatten_dict(arrays).items():
        *owner, leaf = map(str, path)
        array = np.asarray(array)
        if leaf == "kernel" and array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif leaf == "kernel":
            pixels = getattr(module.get_submodule(".".join(owner)), "pixels", 1)
            units = array.shape[1]
            array = array.reshape(pixels, -1, units).transpose(2, 1, 0).reshape(units, -1)
        # torch.tensor copies, so that JAX may donate the original.
        state[".".join([*owner, _NAMES.get(leaf, leaf)])] = torch.tensor(array)
    return state


def transplant(params: Mapping[str, Any], batch_stats: Mapping[str, Any], module: nn.Module):
    """Copies parameters and running statistics into the PyTorch version of the network.

    Args:
      params: A nested dict of the parameters.
      batch_stats: A nested dict of the running statistics.
      module: The PyTorch network, which is modified in place.

    Raises:
      RuntimeError: If the names or shapes of the two networks differ.
    """
    module.load_state_dict(to_state_dict(params, module) | to_state_dict(batch_stats, module))
