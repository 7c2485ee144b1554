"""Reads config.json, and other files of a workdir that hold a JSON object."""

import json
import os
from pathlib import Path
from typing import Any

from cifar_jax.config import flatten
from cifar_jax.errors import UserError
from cifar_jax.run import rules
from cifar_jax.run.workdir import check_format


def read(folder: Path) -> dict[str, Any]:
    """Returns a run's nested config.

    Raises:
      UserError: If the folder holds no run, or the file cannot be read or is damaged.
    """
    if not os.path.isdir(folder):  # unlike folder.is_dir(), not an OSError if the path is too long
        raise UserError(f"{folder} is not a folder")
    check_format(folder)
    config = read_object(folder / "config.json")
    if config is None:
        inside = sorted(path.parent for path in folder.glob("*/config.json"))
        hint = f"; did you mean {inside[0]}?" if inside else ""
        raise UserError(f"{folder} holds no run: it has no config.json{hint}")
    rules.check(folder / "config.json", flatten(config), rules.CONFIG)
    return config


def read_object(path: Path) -> dict[str, Any] | None:
    """Returns the object in a JSON file, or None if the file does not exist.

    Raises:
      UserError: If it cannot be read, or holds something else.
    """
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value
