"""Config files: finding, importing, completing and flattening them.

base.py has every field with its default; command_line.py reads --config and what is set beside it.
"""

import contextlib
import runpy
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cifar_jax.config import base
from cifar_jax.errors import UserError, unknown


def flatten(tree: Mapping | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Returns {"optim.name": "sgd", ...} for nested fields."""
    result = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping | ConfigDict)
        result |= flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return result


def load(path: str | Path) -> ConfigDict:
    """Returns the config of a file, its experiment named after the path, locked.

    Raises:
      UserError: where there is no such file, it does not give a config, or the config has a field
        that the base config has not.
    """
    path = Path(path)
    if not path.is_file():
        known = [str(p) for p in Path("configs").rglob("*.py") if p.name != "base.py"]
        if not known:
            raise UserError(f"--config {path} is no file, and this folder has no configs/")
        raise unknown("config", str(path), known)
    known = flatten(base.get_config())
    try:
        with _importable_configs(path):
            config = runpy.run_path(str(path))["get_config"]()
        config.experiment = experiment_name(path)
        fields = flatten(config)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(
            f"--config {path} is no config ({reason}); configs/quickstart.py is one"
        ) from error
    for field in fields:
        if field not in known and not field.startswith("model."):
            raise unknown(f"config field in {path}", field, known)
    return config.lock()


def choose_model(config: ConfigDict, name: str) -> None:
    """Sets the network, and every option of it that the config does not set to its default.

    So the config says, and config.json records, all that the network was built with. Options that
    the network does not have are dropped where it is not the one that the config was written for.

    Raises:
      UserError: for an unknown network, or an option that the config's own network lacks.
    """
    from cifar_jax import models  # takes a second: not before the command line is known to be right

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
    """Returns configs/coarse/cnn4.py as "coarse/cnn4"; elsewhere the file's bare name."""
    path = Path(path).resolve()
    for parent in path.parents:
        if parent.name == "configs":
            return path.relative_to(parent).with_suffix("").as_posix()
    return path.stem


@contextlib.contextmanager
def _importable_configs(path: Path) -> Iterator[None]:
    """Within it a config file can import others, as `configs.coarse.cnn4`, from any folder.

    Those of the nearest configs/ above the file come first, then those of this checkout.
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
