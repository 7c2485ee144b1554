"""The folder of one run: whose it is, who is at work in it, and whether the run is complete."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from cifar_jax.config import flatten
from cifar_jax.errors import UserError
from cifar_jax.optim import schedules
from cifar_jax.run.summary import write_json

# What may differ between a run's start and its resumption: these fields say where and how fast it
# runs, never what comes out.
FREE = (
    *("data.dir", "steps_per_call", "gpu_graph", "eval_batch_size", "checkpoint."),
    "trackers",
)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Makes the folder if need be and keeps other processes from running in it.

    Raises:
      UserError: where another process runs there, or where it cannot be written.
    """
    try:
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
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    """Locks a folder; for a second it waits for reports, which look whether it is locked."""
    for last in (*[False] * 10, True):
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if last:
                raise UserError(f"another process is at work in --workdir {folder}") from error
        except OSError:
            return None  # a file system without locks
        time.sleep(0.1)


def check(config: ConfigDict, folder: Path) -> dict[str, Any] | None:
    """Checks that the folder is this config's or nobody's; changes nothing in it.

    A folder without a checkpoint is nobody's, whatever was tried in it before.

    Returns:
      The content of summary.json where the config's run is complete, else None.

    Raises:
      UserError: where the folder holds another run.
    """
    if not any(p.name.isdigit() for p in folder.glob("checkpoints/*")):
        return None
    previous = _read(folder / "config.json")
    if previous is None:
        raise UserError(
            f"--workdir {folder} holds checkpoints, but no readable config.json that says of which "
            "run. Choose another --workdir, or remove that folder"
        )
    _check_same(flatten(previous), flatten(_plain(config)), folder)
    summary = _read(folder / "summary.json")
    if previous.get("num_epochs") == config.num_epochs and summary and "test_accuracy" in summary:
        return summary
    return None  # a summary that cannot be read is made anew from the checkpoint


def _read(path: Path) -> dict[str, Any] | None:
    """Returns the object in a JSON file, None where there is none."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def claim(config: ConfigDict, folder: Path) -> None:
    """Makes the folder this config's: from now on a run is in it, and it is not complete."""
    write_json(folder / "config.json", _plain(config))
    (folder / "summary.json").unlink(missing_ok=True)


def _plain(config: ConfigDict) -> dict[str, Any]:
    return json.loads(config.to_json())


def _check_same(old: dict[str, Any], new: dict[str, Any], folder: Path) -> None:
    free = list(FREE)
    # More epochs continue a run where the rates of those behind it stay what they were.
    if not schedules.depends_on_length(new["optim.schedule"]) and (
        new["num_epochs"] >= old.get("num_epochs", 0)
    ):
        free.append("num_epochs")
    differing = [
        f"{field} is {old.get(field, 'absent')!r} there and {new.get(field, 'absent')!r} here"
        for field in sorted(old | new)
        if old.get(field) != new.get(field) and not field.startswith(tuple(free))
    ]
    if differing:
        raise UserError(
            f"--workdir {folder} holds another run: {'; '.join(differing)}. "
            "Choose another --workdir, or remove that folder"
        )
