"""Finds a config file, runs it, and describes what is wrong with it in one line."""

import contextlib
import re
import runpy
import sys
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from cifar_jax.errors import UserError, closest, shorten

EXAMPLE = "; see configs/quickstart.py for an example"


def check_path(path: Path) -> None:
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
    hint = f"configs/ has {len(files)} config files, such as configs/cnn3.py"
    raise UserError(f"{kind}: {hint if files else 'the working directory has no configs/'}")


def run(path: Path) -> Any:
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
                f"--config {path} cannot be imported ({describe(error)}){EXAMPLE}"
            ) from error
        except (Exception, SystemExit) as error:
            raise UserError(f"--config {_where(error, path)}: {describe(error)}") from error
    raise UserError(
        f"--config {path} is not a config file: it defines no function get_config{EXAMPLE}"
    )


def _where(error: BaseException, path: Path) -> str:
    """Returns the last file and line outside the libraries in the traceback of an exception."""
    libraries = {sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).is_file()
        and not libraries & {*map(str, Path(frame.filename).parents)}
    ]
    # The file has no frame if, for example, its get_config needs an argument.
    last = frames[-1]
    return str(path) if last.filename == __file__ else f"{last.filename}, line {last.lineno}"


def describe(error: BaseException) -> str:
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

    The nearest configs/ above the file takes precedence over those in sys.path, which starts with
    the working directory, and over the one in this checkout.
    """
    before = sys.path[:]
    folders = [parent.parent for parent in path.resolve().parents if parent.name == "configs"]
    sys.path[:0] = map(str, folders[:1])
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    # Modules of the same names that a config file in another folder has imported must not be used.
    imported = _pop_configs()
    try:
        yield
    finally:
        sys.path[:] = before
        _pop_configs()
        sys.modules.update(imported)


def _pop_configs() -> dict[str, ModuleType]:
    """Removes the package `configs` and its modules from sys.modules, and returns them."""
    names = [name for name in sys.modules if name.partition(".")[0] == "configs"]
    return {name: sys.modules.pop(name) for name in names}
