"""Checks the fields of `config.search`, derives the config of trials, and claims the workdir."""

import contextlib
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cifar_jax import experiment
from cifar_jax.config import completed, flatten_json
from cifar_jax.errors import UserError, unknown
from cifar_jax.run import config_json
from cifar_jax.run.summary import write_json
from cifar_jax.run.workdir import NON_SEMANTIC_FIELDS, SEARCH_FILE, defaults, differences

# Version 1 carried the options of the config's network over to the networks of a space.
_VERSION = 2
SAMPLERS = ("random", "tpe")
PRUNERS = ("none", "median", "hyperband")
# Fields that may change when a search continues.
_MAY_CHANGE = (*(name for name in NON_SEMANTIC_FIELDS if name != "search."), "search.num_trials")


def check(config: ConfigDict, num_epochs: int) -> None:
    """Checks the fields of `config.search` except for the space.

    Args:
      config: The config.
      num_epochs: The number of epochs of the longest trial.

    Raises:
      UserError: If one is invalid.
    """
    search = config.search
    for field, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        if search[field] not in known:
            raise unknown(f"search.{field}", search[field], known)
    if not 1 <= search.num_trials < 2**31:
        raise UserError(f"search.num_trials must be at least 1, got {search.num_trials}")
    if not 0 <= search.val_fraction < 1:
        raise UserError(f"search.val_fraction must be in [0, 1), got {search.val_fraction}")
    if search.pruner != "none" and not 1 <= search.min_epochs <= num_epochs:
        raise UserError(
            f"search.min_epochs must be from 1 to num_epochs, which is {num_epochs}, got "
            f"{search.min_epochs}: set --config.search.min_epochs=1, or "
            "--config.search.pruner=none, which ignores it"
        )


def trial_config(config: ConfigDict) -> ConfigDict:
    """Returns the checked config of a trial, before it gets its values.

    Trials hold out a validation split; see config.search.val_fraction.

    Raises:
      UserError: If there is no such split, if the reported epoch is selected on the training
        images, or if another field is invalid.
    """
    experiment.checked(config)
    config = config.copy_and_resolve_references()
    with config.unlocked():
        if not config.data.val_fraction:
            config.data.val_fraction = config.search.val_fraction
            if config.selected_on == "test":
                config.selected_on = "val"
    if not config.data.val_fraction:
        raise UserError(
            "a search compares trials on a validation split, and there is none: set "
            "search.val_fraction or data.val_fraction, as in --config.search.val_fraction=0.1"
        )
    if config.selected_on == "train":
        raise UserError("selected_on must be 'val' or 'last' in a search, got 'train'")
    return experiment.checked(config)


def without_password(storage: str | None) -> str:
    """Returns a storage's URL without its password, for messages and files that others may read."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", storage or "in the workdir")


def is_new(folder: Path) -> bool:
    """Returns whether a folder holds no search yet."""
    return not (folder / SEARCH_FILE).exists()


def claim(config: ConfigDict, folder: Path, storage: str | None) -> str:
    """Assigns a workdir to a search, or checks that it holds this one.

    Args:
      config: The config, before trials get their values.
      folder: The workdir, which is created if necessary.
      storage: The URL of the storage, or None for a file in the workdir.

    Returns:
      The name of the study.

    Raises:
      UserError: If the workdir holds something else, or cannot be written.
    """
    mine = {
        "study": config.experiment if storage is None else _unique(config.experiment),
        "storage": without_password(storage),
        "config": json.loads(config.to_json()),
        "version": _VERSION,
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _check_not_foreign(folder)
        _write_once(folder / SEARCH_FILE, mine)
    except OSError as error:
        raise UserError(f"--workdir {folder} cannot be used: {error.strerror}") from error
    there = config_json.read_object(folder / SEARCH_FILE) or {}
    for field, kind in (("study", ""), ("config", {})):
        if not isinstance(there.get(field), type(kind)):
            raise UserError(f"{folder / SEARCH_FILE} is damaged: it lacks {field}")
    if there.get("storage") != mine["storage"]:
        raise UserError(
            f"--workdir {folder} holds a search with --storage {there.get('storage')}, not "
            f"{mine['storage']}: choose another --workdir"
        )
    if there.get("version", 1) < _VERSION and "model.name" in config.search.space:
        raise UserError(
            f"--workdir {folder} holds a search over networks that an older version of cifar_jax "
            "began, which gave them other options: choose another --workdir"
        )
    old = defaults(config) | flatten_json(completed(there["config"]))
    differing = differences(old, flatten_json(config), _MAY_CHANGE)
    if differing:
        raise UserError(
            f"--workdir {folder} holds another search: {'; '.join(differing)}. "
            "Choose another --workdir, or remove that folder"
        )
    return there["study"]


def _unique(experiment: str) -> str:
    """Returns a name for a study in a database, which may hold studies of other workdirs."""
    return f"{experiment}-{secrets.token_hex(4)}"


def _check_not_foreign(folder: Path) -> None:
    if not is_new(folder):
        return
    if (folder / "config.json").exists() or (folder / "checkpoints").exists():
        raise UserError(f"--workdir {folder} holds a training run: choose another")
    expected = (r"\..*", r".*\.(log|txt|out|err|part)", "slurm.*", "nohup.*")
    names = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in names if not re.fullmatch("|".join(expected), name)]
    if foreign and is_new(folder):  # another worker may have claimed it meanwhile
        raise UserError(
            f"--workdir {folder} holds files that do not belong to a search "
            f"({', '.join(foreign[:3])}): choose a new folder"
        )


def _write_once(path: Path, value: Any) -> None:
    """Writes a JSON file unless it exists; of several concurrent processes, only one writes it."""
    if path.exists():
        return
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        write_json(part, value)
        with contextlib.suppress(FileExistsError):
            os.link(part, path)
    finally:
        part.unlink(missing_ok=True)
