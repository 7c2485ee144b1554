"""Loads, completes and flattens config files.

base.py defines every field with its default; file.py finds and runs a config file; command_line.py
parses --config and its overrides.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cifar_jax.config import base, file
from cifar_jax.config.file import experiment_name
from cifar_jax.errors import UserError, check_kind, unknown

__all__ = ["UserError", "check_kinds", "choose_model", "completed", "experiment_name", "flatten"]
__all__ += ["flatten_json", "load", "load_complete"]


def flatten(tree: Mapping | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Returns {"optim.name": "sgd", ...} for nested fields."""
    result = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping | ConfigDict)
        result |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return result


def load(path: str | Path) -> ConfigDict:
    """Returns the locked config that a file defines, with `experiment` derived from its path.

    Raises:
      UserError: If the file does not exist, raises an exception or defines no config, or if the
        config lacks a field of the base config, adds one, or changes the kind of a value.
    """
    path = Path(path)
    file.check_path(path)
    config = file.run(path)
    if not isinstance(config, ConfigDict):
        kind = type(config).__name__
        raise UserError(
            f"--config {path}: get_config returns a {kind}, not a ConfigDict{file.EXAMPLE}"
        )
    try:
        config = ConfigDict(config).copy_and_resolve_references()
        with config.unlocked():
            config.experiment = experiment_name(path)
        known, fields = flatten(base.get_config()), flatten(config)
    # For example because a field's name is not a string, or a group of fields contains itself.
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"--config {path}: {file.describe(error)}") from error
    for field in fields:
        if field not in known and not field.startswith("model."):
            raise unknown(f"config field in {path}", field, known)
    for field in known:
        if field not in fields:
            raise UserError(
                f"--config {path} lacks the field {field}: get_config has to start from "
                "cifar_jax.config.base.get_config(), and to set fields, not groups of fields"
            )
    try:
        check_kinds(config)
    except UserError as error:
        raise UserError(f"--config {path}: {error}") from error
    return config.lock()


def check_kinds(config: ConfigDict) -> None:
    """Checks that every field of the base config has a value of the same kind as its default.

    Raises:
      UserError: If the kinds differ, as for "10" instead of 10, or a value is NaN or infinite.
    """
    fields = flatten(config)
    for field, default in flatten(base.get_config()).items():
        check_kind(field, fields[field], default)


def load_complete(path: str | Path) -> ConfigDict:
    """Returns the config of a file like `load`, completed with the default options of its network.

    Raises:
      UserError: See `load` and `choose_model`.
    """
    config = load(path)
    choose_model(config, config.model.name)
    return config


def completed(nested: Mapping[str, Any]) -> ConfigDict:
    """Returns a config from the contents of config.json, with defaults for the fields it lacks.

    Configs that older versions wrote lack the fields that were added since.
    """

    def merge(defaults: Mapping, given: Mapping) -> dict:
        both = {
            key: merge(defaults[key], value)
            for key, value in given.items()
            if isinstance(value, Mapping) and isinstance(defaults.get(key), Mapping)
        }
        return {**defaults, **given, **both}

    return ConfigDict(merge(base.get_config().to_dict(), nested), convert_dict=True)


def flatten_json(config: ConfigDict) -> dict[str, Any]:
    """Returns `flatten(config)` with the values as config.json holds them: tuples as lists."""
    return flatten(json.loads(config.to_json()))


def choose_model(config: ConfigDict, name: str) -> None:
    """Sets `model.name`, and adds the default of every network option that the config omits.

    The config, and thus config.json, records every option that the network is built with. If `name`
    is not the network that the config was written for, options that `name` lacks are dropped, and
    so are those that have the default of the config's network: `name` may have another one.

    Raises:
      UserError: If the network is unknown, or the config sets an option that its own network lacks.
    """
    from cifar_jax import models  # takes a second, so other errors are reported first

    defaults = models.options_of(name)
    given = {k: v for k, v in config.model.items() if k != "name"}
    if name == config.model.name:
        for option in given:
            if option not in defaults:
                raise unknown(f"option of {name}", option, defaults)
    elif config.model.name in models.MODELS:
        own = models.options_of(config.model.name)
        given = {k: v for k, v in given.items() if k not in own or v != own[k]}
    with config.unlocked():
        config.model = ConfigDict(
            {"name": name} | {k: given.get(k, default) for k, default in defaults.items()}
        )
