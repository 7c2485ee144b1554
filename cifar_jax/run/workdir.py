"""Locks a run's workdir, and checks which run it holds and whether that run is complete.

The lock is an flock on the folder itself, which the system releases when the process ends. The
package filelock (4.3) would need a lock file in the folder. Users who may only read the workdir
could not open that file to see whether the run is active. It would also raise an exception on file
systems that support no locks.
"""

import contextlib
import fcntl
import json
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cifar_jax.config import base, choose_model, flatten, flatten_json
from cifar_jax.errors import UserError
from cifar_jax.optim import parameter_groups, schedules
from cifar_jax.run.storage import saved_steps
from cifar_jax.run.summary import is_complete, write_json

# Fields that may change when a run resumes: they do not affect its results.
NON_SEMANTIC_FIELDS = (
    *("data.dir", "steps_per_call", "gpu_graph", "eval_batch_size", "checkpoint."),
    *("trackers", "transfer.cache_features", "search."),
)
# Identifies the workdir of a hyperparameter search.
SEARCH_FILE = "search.json"
# The format of workdirs that this version writes. A workdir of format 1 has checkpoints without
# checksums, and no format file.
FORMAT = 2
_FORMAT_FILE = "format_version"
# Files and folders that identify a folder as the workdir of a run.
_OF_A_RUN = {
    *("metrics.csv", "summary.json", "predictions.npz", "checkpoints", "plots", "tensorboard"),
    *("profile", _FORMAT_FILE),
}
# What a new run's folder may contain: logs, trackers' files, and what older versions leave there.
_EXPECTED = re.compile(
    r"\..*|.*\.(log|txt|out|err|part)|wandb.*|mlruns|mlflow.*|range_test.*|slurm.*|nohup.*"
)
# Fields that may differ between runs whose results are compared.
_NOT_COMPARED = ("seed", *NON_SEMANTIC_FIELDS)


def what_counts(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the flattened settings that must be equal in all runs of the same experiment."""
    return {k: v for k, v in settings.items() if not k.startswith(_NOT_COMPARED)}


class InUse(UserError):
    """Another process is using the workdir."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Creates the folder if necessary, and locks it against other processes.

    A folder that was created and is still empty on exit is removed.

    Raises:
      InUse: If another process is using the folder.
      UserError: If the folder cannot be written.
    """
    try:
        created = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"--workdir {folder} cannot be used: {error.strerror}") from error
    try:
        if not os.access(folder, os.W_OK):
            raise UserError(f"--workdir {folder} cannot be written")
        _lock(handle, folder)
        yield
    finally:
        with contextlib.suppress(OSError):  # not empty
            for path in created:
                path.rmdir()
        os.close(handle)


def is_at_work(folder: Path) -> bool | None:
    """Returns whether a process holds a workdir's lock, or None if the file system has no locks."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return None
    finally:
        os.close(handle)
    return False


def _lock(handle: int, folder: Path) -> None:
    """Locks a folder, retrying for a second because reports lock it briefly to check it."""
    for last in (*[False] * 10, True):
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if last:
                raise InUse(f"another process is using --workdir {folder}") from error
        except OSError:
            print(f"note: {folder} cannot be locked: start only one run there", file=sys.stderr)
            return None  # a file system without locks
        time.sleep(0.1)


def check(config: ConfigDict, folder: Path) -> dict[str, Any] | None:
    """Checks that the folder belongs to this config or to no run, without changing it.

    A folder without a checkpoint belongs to a run only if that is complete, even if it contains
    other files of a run.

    Returns:
      The content of summary.json if the config's run is complete, otherwise None.

    Raises:
      UserError: If the folder holds another run, or only files that do not belong to a run.
    """
    check_format(folder)
    if (folder / SEARCH_FILE).exists():
        raise UserError(
            f"--workdir {folder} holds a hyperparameter search: choose another --workdir, such as "
            f"{folder / 'best'}"
        )
    if (folder / "checkpoints").exists() and not (folder / "checkpoints").is_dir():
        raise UserError(
            f"{folder / 'checkpoints'} is not a folder: move it, or choose another --workdir"
        )
    previous, summary = _read(folder / "config.json"), _read(folder / "summary.json")
    has_checkpoints = bool(saved_steps(folder / "checkpoints"))
    is_done = previous is not None and summary is not None and is_complete(summary)
    if not has_checkpoints and not is_done:
        _check_not_foreign(folder)
        return None
    if previous is None:
        raise UserError(
            f"--workdir {folder} holds checkpoints, but no readable config.json that says which "
            "run they belong to. Choose another --workdir, or remove that folder"
        )
    filled = defaults(config)
    _check_same(filled | flatten(previous), filled | flatten_json(config), folder)
    if is_done and previous.get("num_epochs") == config.num_epochs:
        return summary
    if not has_checkpoints:
        raise UserError(
            f"--workdir {folder} holds a complete run without its checkpoints, which cannot be "
            "continued: choose another --workdir, or remove that folder"
        )
    return None  # an unreadable summary is rebuilt from the checkpoint


def _read(path: Path) -> dict[str, Any] | None:
    """Returns the object in a JSON file, or None if it cannot be read or holds no object."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def check_format(folder: Path) -> None:
    """Raises UserError if a newer version has written a workdir."""
    path = folder / _FORMAT_FILE
    try:
        text = path.read_text().strip()
    except FileNotFoundError:  # format 1
        return
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not re.fullmatch("[0-9]{1,9}", text):
        raise UserError(f"{path} is damaged: it must be a whole number, got {text[:40]!r}")
    if int(text) > FORMAT:
        raise UserError(
            f"{folder} has workdir format {text}, but this version of cifar_jax reads formats up "
            f"to {FORMAT}: use a newer version"
        )


def _check_not_foreign(folder: Path) -> None:
    """Raises UserError if a folder has unexpected files, and no file or folder of a run."""
    names = sorted(path.name for path in folder.iterdir())
    foreign = [name for name in names if not _EXPECTED.fullmatch(name)]
    if foreign and not _OF_A_RUN.intersection(names):
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise UserError(
            f"--workdir {folder} holds files that do not belong to a run "
            f"({', '.join(foreign[:3])}{more}): choose a new folder"
        )


def claim(config: ConfigDict, folder: Path) -> None:
    """Assigns the folder to this config's run."""
    write_json(folder / "config.json", json.loads(config.to_json()))
    write_json(folder / _FORMAT_FILE, FORMAT)
    (folder / "diverged.txt").unlink(missing_ok=True)


def defaults(config: ConfigDict) -> dict[str, Any]:
    """Returns the defaults of all fields, for those that the config of an older run lacks."""
    complete = base.get_config()
    choose_model(complete, config.model.name)
    return flatten_json(complete)


def _check_same(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    ignored = list(NON_SEMANTIC_FIELDS)
    # More epochs may be added if the learning rates of the completed ones stay the same.
    settings = {
        name.removeprefix("optim."): value
        for name, value in new.items()
        if name.startswith("optim.")
    }
    depends_on_length = schedules.depends_on_length(new["optim.schedule"]) or (
        parameter_groups.depends_on_length(parameter_groups.parse(settings["groups"], settings))
    )
    depends_on_length |= bool(new["lookahead.every"])
    if not depends_on_length and new["num_epochs"] >= old.get("num_epochs", 0):
        ignored.append("num_epochs")
    differing = differences(old, new, ignored)
    if differing:
        raise UserError(
            f"--workdir {folder} holds another run: {'; '.join(differing)}. "
            "Choose another --workdir, or remove that folder"
        )


def differences(old: dict[str, Any], new: dict[str, Any], ignored: Iterable[str]) -> list[str]:
    """Returns a text for every flattened field that differs and starts with no ignored prefix."""
    return [
        f"{field} is {old.get(field, 'absent')!r} there and {new.get(field, 'absent')!r} here"
        for field in sorted(old | new)
        if old.get(field) != new.get(field) and not field.startswith(tuple(ignored))
    ]
