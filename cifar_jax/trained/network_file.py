"""Writes a trained network to a safetensors file, and reads such a file.

Its arrays have the names of their paths in the tree of parameters, joined by dots, as in
"layers.1.kernel". BatchNorm's running statistics are among them. The metadata are the values of
`describe`: text as is, everything else as JSON.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from cifar_jax import __version__, augment, experiment, image_file
from cifar_jax.config import base, choose_model
from cifar_jax.data import DatasetInfo
from cifar_jax.engine import replicated
from cifar_jax.errors import UserError, quote
from cifar_jax.trained.restore import Trained, one_device
from cifar_jax.transfer import safetensors_file, weight_file
from cifar_jax.transfer.fitting import fit


def describe(network: Trained) -> dict[str, Any]:
    """Returns what a program without this package needs to know about a network, as JSON values.

    For images [B, 32, 32, 3] in [0, 255], its input is (images / 255 - mean) / std, with the
    channels in the order `channels`, and resized to `image_size`. `views` is the number of views of
    each image whose logits were averaged for `accuracy`; see augment/views.py.
    """
    config, info = network.config, network.info
    scaling = augment.scaling(config.augment.normalize, info.mean, info.std)
    mean, std = (np.broadcast_to(np.float64(x), 3).tolist() for x in (scaling.mean, scaling.std))
    return {
        "format": safetensors_file.FORMAT,
        "version": __version__,
        "experiment": config.experiment,
        "model": json.loads(config.model.to_json()),
        "dtype": config.dtype,
        "classes": [*info.class_names],
        "dataset": config.data.name,
        "label": config.data.label,
        "normalize": config.augment.normalize,
        "mean": mean,
        "std": std,
        "channels": "BGR" if scaling.is_bgr else "RGB",
        "image_size": config.augment.resize or image_file.SIZE,
        "resize_method": config.augment.resize_method,
        "views": config.augment.views,
        "step": network.step,
        "epoch": network.epoch,
        "accuracy": dict(network.accuracy),
    }


def write(network: Trained, path: Path) -> None:
    """Writes a network to a safetensors file.

    Raises:
      UserError: If the package safetensors is not installed.
      OSError: If the file cannot be written.
    """
    params, batch_stats = network.state.evaluated
    arrays = flatten_dict(params) | flatten_dict(batch_stats)
    tensors = {".".join(map(str, path)): np.asarray(array) for path, array in arrays.items()}
    about = describe(network)
    metadata = {k: v if isinstance(v, str) else json.dumps(v) for k, v in about.items()}
    safetensors_file.write(path, tensors, metadata)


def read(path: Path) -> Trained:
    """Returns the network in a safetensors file that `write` wrote.

    Raises:
      UserError: If the file cannot be read, is damaged, or does not hold such a network.
    """
    weights = weight_file.read(path)
    if weights.layout != safetensors_file.FORMAT:
        raise UserError(f"{path} was not written by cifar_jax.export")
    try:
        config, info = _settings(weights.metadata)
        parts = experiment.make_parts(config, info)
        step, epoch, accuracy = (
            json.loads(weights.metadata[key]) for key in ("step", "epoch", "accuracy")
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        reason = error if isinstance(error, UserError) else quote(error)
        raise UserError(f"the metadata of {path} is damaged: {reason}") from error
    shapes = jax.eval_shape(parts.init, 0)
    fitted = fit(weights, config.model.name, shapes, is_head=lambda path: False)
    trees = fitted.params, fitted.batch_stats
    params, batch_stats = jax.device_put(trees, replicated(one_device()))
    state = shapes.replace(params=params, batch_stats=batch_stats)
    return Trained(config, info, parts, state, step, epoch, accuracy)


def _settings(metadata: Mapping[str, str]) -> tuple[ConfigDict, DatasetInfo]:
    """Returns the config and the data set that the metadata of an exported network describes."""
    config = base.get_config()
    config.experiment = metadata["experiment"]
    config.model = ConfigDict(json.loads(metadata["model"]))
    config.dtype = metadata["dtype"]
    config.data.name, config.data.label = metadata["dataset"], metadata["label"]
    config.augment.normalize = metadata["normalize"]
    size = json.loads(metadata["image_size"])
    config.augment.resize = 0 if size == image_file.SIZE else size
    config.augment.resize_method = metadata["resize_method"]
    config.augment.views = json.loads(metadata.get("views", "1"))  # absent in older files
    choose_model(config, config.model.name)
    classes, mean, std = (json.loads(metadata[name]) for name in ("classes", "mean", "std"))
    info = DatasetInfo(tuple(classes), np.float32(mean), np.float32(std))
    if not classes or not all(isinstance(name, str) for name in classes):
        raise UserError(f"classes must be a list of strings, got {quote(classes)}")
    if not (info.mean.shape == info.std.shape == (3,) and np.isfinite(info.mean).all()):
        raise UserError(f"mean and std must be three numbers each, got {mean} and {std}")
    if not (np.isfinite(info.std) & (info.std > 0)).all():
        raise UserError(f"std must be above 0, got {std}")
    return experiment.checked(config), info
