"""Pretrained weights: from files of Keras, torchvision and timm, or from this suite's own runs.

`load` finds every array of the body of a network, the part before its head, in

- an HDF5 file in the legacy layout of Keras, in which keras.applications publishes weights;
- a safetensors file with the names of torchvision or timm, or one that this suite exported;
- the workdir of a run of this suite;
- "keras", the file that keras.applications publishes for the network, which is downloaded;
- "hf:OWNER/REPO" or "hf:OWNER/REPO@REVISION", `model.safetensors` on the Hugging Face Hub.

weight_file.py, keras_hdf5.py and safetensors_file.py read the formats; names.py and layouts.py hold
the names that other libraries give our layers, and the order of their axes; fitting.py checks names
and shapes; hub.py downloads, and run_weights.py reads workdirs. fine_tuning.py determines which
layers train when, and features.py computes the features of images only once.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cifar_jax.errors import UserError
from cifar_jax.transfer import hub, run_weights, weight_file
from cifar_jax.transfer.fitting import Pretrained, fit
from cifar_jax.transfer.hub import Unavailable

__all__ = ["Pretrained", "Unavailable", "find", "load"]


def find(weights: str, model_name: str) -> Path:
    """Returns the file or the workdir with weights; downloads those that are chosen by name.

    Args:
      weights: A path, or the name of a source; see the module's docstring.
      model_name: The network's name in cifar_jax.models.

    Raises:
      Unavailable: If they are not on this machine, and cannot be downloaded.
      UserError: If the source has no weights for this network. A path that does not exist is
        reported only by `load`.
    """
    if weights == hub.KERAS:
        return hub.from_keras(model_name)
    if weights.startswith(hub.HUGGING_FACE):
        return hub.from_hugging_face(weights)
    return Path(os.path.expanduser(weights))  # unlike Path.expanduser, keeps an unknown user


def load(
    weights: str, model_name: str, template: Any, is_head: Callable[[tuple], bool]
) -> Pretrained:
    """Loads pretrained weights for a network.

    Args:
      weights: See `find`.
      model_name: See `find`.
      template: An object with the attributes `params` and `batch_stats`, nested dicts of arrays or
        of their shapes, such as `jax.eval_shape(init, 0)`, a TrainState.
      is_head: Whether an array, given the path of its keys in the tree, belongs to the head.

    Returns:
      The arrays of the body and, if the source has them with the same shapes, of the head.

    Raises:
      UserError: If the source does not exist, cannot be read or is damaged, holds another network,
        or lacks an array of the body.
    """
    path = find(weights, model_name)
    try:
        os.stat(path)
    except FileNotFoundError as error:
        raise UserError(
            f"transfer.weights: {weights} does not exist; it must be a file, the workdir of a run, "
            f"{hub.KERAS!r} or '{hub.HUGGING_FACE}OWNER/REPO'"
        ) from error
    except (OSError, ValueError):  # a NUL byte, or what `read` reports
        pass
    # os.path.isdir, unlike Path.is_dir, raises no OSError if the path is too long.
    read = run_weights.read if os.path.isdir(path) else weight_file.read
    return fit(read(path), model_name, template, is_head)
