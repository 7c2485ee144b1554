"""Finds, imports, completes and flattens config files.

base.py defines every field with its default; command_line.py parses --config and its overrides.
"""

import contextlib
import json
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cifar_jax.config import base
from cifar_jax.errors import UserError, unknown

_EXAMPLE = "; see configs/quickstart.py for an example"


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
      UserError: If the file does not exist, cannot be imported or defines no config, or if the
        config has a field that the base config lacks. Exceptions raised by the file's own code
        propagate.
    """
    path = Path(path)
    if not path.is_file():
        known = [str(p) for p in Path("configs").rglob("*.py") if p.name != "base.py"]
        if not known:
            raise UserError(f"--config {path} is not a file, and this folder has no configs/")
        raise unknown("config", str(path), known)
    known = flatten(base.get_config())
    with _importable_configs(path):
        try:
            names = runpy.run_path(str(path))
        except (SyntaxError, ImportError, OSError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"--config {path} cannot be imported ({reason}){_EXAMPLE}") from error
        if "get_config" not in names:
            raise UserError(
                f"--config {path} is not a config file: it defines no get_config{_EXAMPLE}"
            )
        config = _call(names["get_config"], path)
    if not isinstance(config, ConfigDict):
        kind = type(config).__name__
        raise UserError(f"--config {path}: get_config returns a {kind}, not a ConfigDict{_EXAMPLE}")
    with config.unlocked():
        config.experiment = experiment_name(path)
    fields = flatten(config)
    for field in fields:
        if field not in known and not field.startswith("model."):
            raise unknown(f"config field in {path}", field, known)
    for field in known:
        if field not in fields:
            raise UserError(
                f"--config {path} lacks the field {field}: get_config has to start from "
                "cifar_jax.config.base.get_config()"
            )
    return config.lock()


def _call(get_config: Callable[[], Any], path: Path) -> Any:
    """Returns the result of get_config; a field that a ConfigDict lacks is a UserError."""
    try:
        return get_config()
    except (AttributeError, KeyError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        inside = [frame for frame in frames if Path(frame.filename).parent.name != "config_dict"]
        if inside[-1] is frames[-1]:  # raised by the file's own code
            raise
        message = error
        while isinstance(message, Exception):  # ConfigDict wraps a KeyError in an AttributeError
            message = message.args[0]
        reason = ": ".join(message.splitlines())
        raise UserError(f"{inside[-1].filename}, line {inside[-1].lineno}: {reason}") from error


def load_complete(path: str | Path) -> ConfigDict:
    """Returns the config of a file like `load`, completed with the default options of its network.

    Raises:
      UserError: As `load` and `choose_model`.
    """
    config = load(path)
    choose_model(config, config.model.name)
    return config


def flatten_json(config: ConfigDict) -> dict[str, Any]:
    """Returns `flatten(config)` with the values as config.json holds them: tuples as lists."""
    return flatten(json.loads(config.to_json()))


def choose_model(config: ConfigDict, name: str) -> None:
    """Sets `model.name`, and adds the default of every network option that the config omits.

    The config, and thus config.json, records every option that the network is built with. If `name`
    is not the network that the config was written for, options that `name` lacks are dropped.

    Raises:
      UserError: If the network is unknown, or the config sets an option that its own network lacks.
    """
    from cifar_jax import models  # takes a second, so other errors are reported before it

    defaults = models.options_of(name)
    given = {k: v for k, v in config.model.items() if k != "name"}
    if name == config.model.name:
        for option in given:
            if option not in defaults:
                raise unknown(f"option of {name}", option, defaults)
    with config.unlocked():
        config.model = ConfigDict(
            {"name": name} | {k: given.get(k, default) for k, default in defaults.items()}
        )


def experiment_name(path: str | Path) -> str:
    """Returns "coarse/cnn4" for configs/coarse/cnn4.py; outside configs/, the file's stem."""
    path = Path(path).resolve()
    for parent in path.parents:
        if parent.name == "configs":
            return path.relative_to(parent).with_suffix("").as_posix()
    return path.stem


@contextlib.contextmanager
def _importable_configs(path: Path) -> Iterator[None]:
    """Lets a config file import others, as in `configs.coarse.cnn4`, from any working directory.

    The nearest configs/ above the file takes precedence over the one in this checkout.
    """
    before = sys.path[:]
    folders = [parent.parent for parent in path.resolve().parents if parent.name == "configs"]
    for folder in (*folders[:1], Path(__file__).resolve().parents[2]):
        if (folder / "configs").is_dir() and str(folder) not in sys.path:
            sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path[:] = before
