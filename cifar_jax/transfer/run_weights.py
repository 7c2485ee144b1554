"""Reads trained weights from the workdir of a run of this suite."""

import json
from pathlib import Path
from typing import Any

import jax

from cifar_jax.errors import UserError
from cifar_jax.run.checkpoint import open_checkpoints
from cifar_jax.run.workdir import check_format
from cifar_jax.selection import Selection, curve_split
from cifar_jax.transfer.safetensors_file import FORMAT
from cifar_jax.transfer.weight_file import Weights


def read(folder: Path) -> Weights:
    """Returns the weights of the epoch that a run reports.

    If the run is not complete, that is the best or latest epoch so far.

    Raises:
      UserError: If the folder holds no run or no checkpoint, or its files are damaged.
    """
    check_format(folder)
    config = _config(folder)
    if not (folder / "checkpoints").is_dir():
        raise UserError(f"{folder} has no checkpoint")
    with open_checkpoints(folder / "checkpoints", read_only=True) as checkpoints:
        step = checkpoints.latest_step
        if step is None:
            raise UserError(f"{folder} has no checkpoint")
        try:
            curve = curve_split(config["data"]["val_fraction"])
            selection = Selection(config["selected_on"], config["selected_by"], curve)
            best = selection.best(checkpoints.read_meta(step)["rows"])
            metadata = {
                "model": json.dumps(config["model"]),
                "normalize": str(config["augment"].get("normalize", "")),  # old runs lack it
            }
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{folder} is damaged: it lacks the field {error}") from error
        if best is not None:
            step = best["step"]
        trees = checkpoints.restore_arrays(step, ("params", "batch_stats"))
    leaves = jax.tree_util.tree_leaves_with_path(trees)
    tensors = {
        jax.tree_util.keystr(path[1:], simple=True, separator="."): array for path, array in leaves
    }
    return Weights(f"{folder} (step {step:,})", FORMAT, tensors, metadata)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{folder} holds no run: it has no config.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return config
