"""Finds, imports, completes and flattens config files.

base.py defines every field with its default; command_line.py parses --config and its overrides.
"""

import contextlib
import json
import re
import runpy
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cifar_jax.config import base
from cifar_jax.errors import UserError, check_kind, closest, shorten, unknown

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
      UserError: If the file does not exist or fails, defines no config, or defines one whose fields
        are not those of the base config, with values of the same kinds.
    """
    path = Path(path)
    _check_path(path)
    config = _run(path)
    if not isinstance(config, ConfigDict):
        kind = type(config).__name__
        raise UserError(f"--config {path}: get_config returns a {kind}, not a ConfigDict{_EXAMPLE}")
    try:
        config = ConfigDict(config).copy_and_resolve_references()
        config.experiment = experiment_name(path)
        known, fields = flatten(base.get_config()), flatten(config)
    except (TypeError, RecursionError) as error:  # a name that is no text, or a cycle
        raise UserError(f"--config {path}: {_describe(error)}") from error
    for field in fields:
        if field not in known and not field.startswith("model."):
            raise unknown(f"config field in {path}", field, known)
    for field in known:
        if field not in fields:
            raise UserError(
                f"--config {path} lacks the field {field}: get_config has to start from "
                "cifar_jax.config.base.get_config()"
            )
    try:
        check_kinds(config)
    except UserError as error:
        raise UserError(f"--config {path}: {error}") from error
    return config.lock()


def check_kinds(config: ConfigDict) -> None:
    """Checks that every field of the base config has a value of the same kind as its default.

    Raises:
      UserError: If one has not, such as "10" for 10, or a number that is NaN or infinite.
    """
    fields = flatten(config)
    for field, default in flatten(base.get_config()).items():
        check_kind(field, fields[field], default)


def _check_path(path: Path) -> None:
    """Raises UserError unless there is a Python file at `path`; suggests configs of that name."""
    try:
        is_file, is_folder = path.is_file(), path.is_dir()
    except OSError as error:  # the name is too long, or a folder may not be read
        name = shorten(str(path), 80)
        raise UserError(f"--config {name} cannot be read: {error.strerror}") from error
    if is_file and path.suffix == ".py":
        return
    files = {experiment_name(p): p for p in sorted(Path("configs").rglob("*.py"))}
    files.pop("base", None)
    name = str(path).removeprefix("./").removeprefix("configs/").removesuffix(".py").rstrip("/")
    same = [n for n in files if n.rpartition("/")[2] == name]  # `cnn9` may stand for hybrid/cnn9
    close = [n for n in same if n == name] + same + closest(name, files)
    if is_file:
        kind = f"--config {path} is not a Python file"
    elif is_folder:
        kind = f"--config {path} is a folder, not a config file"
        close = [n for n in files if n.startswith(f"{name}/")]
    else:
        kind = f"--config {shorten(str(path), 80)} is not a file"
    if close:
        raise UserError(f"{kind}: did you mean {files[close[0]]}?")
    hint = f"the folder configs holds {len(files)}, such as configs/cnn3.py"
    raise UserError(f"{kind}: {hint if files else 'this folder has no configs/'}")


def _run(path: Path) -> Any:
    """Runs a config file, and returns what its get_config returns.

    Raises:
      UserError: If the file cannot be imported, raises an exception, exits or defines no
        get_config. The message names the line.
    """
    with _importable_configs(path):
        try:
            get_config = runpy.run_path(str(path)).get("get_config")
            if callable(get_config):
                return get_config()
        except (SyntaxError, ImportError) as error:
            raise UserError(
                f"--config {path} cannot be imported ({_describe(error)}){_EXAMPLE}"
            ) from error
        except (Exception, SystemExit) as error:
            raise UserError(f"--config {_where(error, path)}: {_describe(error)}") from error
    raise UserError(
        f"--config {path} is not a config file: it defines no function get_config{_EXAMPLE}"
    )


def _where(error: BaseException, path: Path) -> str:
    """Returns the file and line in which an exception arose, outside the library of ConfigDict."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).parent.name != "config_dict" and "runpy" not in frame.filename
    ]
    # Without a frame of its own, such as for a get_config that needs an argument, the file fails.
    frames = [frame for frame in frames if Path(frame.filename).is_file()]  # not a builtin's
    last = frames[-1]
    return str(path) if last.filename == __file__ else f"{last.filename}, line {last.lineno}"


def _describe(error: BaseException) -> str:
    """Returns the type and the message of an exception in one line."""
    if isinstance(error, SystemExit):
        return "a config file must not exit"
    message: Any = error
    while isinstance(message, AttributeError | KeyError) and message.args:
        message = message.args[0]  # ConfigDict wraps a KeyError in an AttributeError
    message = ": ".join(str(message).splitlines())
    of_type = "type <class '(.*)'>"
    cast = re.search(rf"override field '(\w+)'.* {of_type} .* {of_type}", message)
    if cast:
        field, *kinds = cast.groups()
        given, needed = (kind.rpartition(".")[2] for kind in kinds)
        return f"{field} must be of type {needed}, not {given}"
    if isinstance(error, AttributeError | KeyError) and message.strip("'").isidentifier():
        message = f"there is no field {message}"
    return f"{type(error).__name__}: {message}"


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
