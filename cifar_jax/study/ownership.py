"""Decides which worker trains a trial, using files in the trial's folder.

The owner of a trial is the worker that created the newest of the files .owner.0, .owner.1, and so
on. Only one worker can create each of them, even on NFS. The owner touches its file every few
seconds. If it is killed, the file is no longer touched; after a minute, another worker creates the
next file and continues from the last checkpoint. Optuna's own heartbeat exists only for databases,
and it restarts trials.
"""

import contextlib
import os
import re
import secrets
import socket
import threading
from pathlib import Path
from typing import NamedTuple

from cifar_jax.run.workdir import is_at_work


class Timing(NamedTuple):
    """How often an owner touches its file, and the age at which others take over, in seconds.

    The interval is also how long a worker waits before it looks for trials again.
    """

    interval: float = 5.0
    timeout: float = 60.0


DEFAULT = Timing()


class Owner:
    """The ownership of a trial, renewed by a thread until `close` is called."""

    def __init__(self, folder: Path, number: int, interval: float):
        self._folder, self._number = folder, number
        self._path = _path(folder, number)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._renew, args=(interval,), daemon=True)
        self._thread.start()

    def _renew(self, interval: float) -> None:
        while not self._closing.wait(interval):
            with contextlib.suppress(OSError):  # the file server may be down for a moment
                os.utime(self._path)

    def is_current(self) -> bool:
        """Returns whether no other worker has taken over the trial."""
        return _newest(self._folder) == self._number

    def close(self, *, abandons: bool) -> None:
        """Stops renewing.

        Args:
          abandons: Whether others may take over the trial immediately.
        """
        self._closing.set()
        self._thread.join()
        if abandons:
            with contextlib.suppress(OSError):
                os.utime(self._path, (0, 0))


def claim(folder: Path, timing: Timing) -> Owner | None:
    """Makes this worker the owner of a trial that has none.

    Args:
      folder: The trial's folder, which is created if necessary.
      timing: The interval and the timeout.

    Returns:
      The ownership, or None if another worker is the owner.
    """
    folder.mkdir(parents=True, exist_ok=True)
    newest = _newest(folder)
    if newest is not None and _age(folder, newest) <= timing.timeout:
        return None
    if is_at_work(folder):  # a suspended worker still holds the lock
        return None
    number = 0 if newest is None else newest + 1
    try:
        handle = os.open(_path(folder, number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
    except FileExistsError:
        return None
    with open(handle, "w") as file:  # for people to read
        file.write(f"{socket.gethostname()} {os.getpid()}\n")
    return Owner(folder, number, timing.interval)


def _path(folder: Path, number: int) -> Path:
    return folder / f".owner.{number}"


def _newest(folder: Path) -> int | None:
    names = (re.fullmatch(r"\.owner\.([0-9]{1,9})", path.name) for path in folder.iterdir())
    return max((int(name[1]) for name in names if name), default=None)


def _age(folder: Path, number: int) -> float:
    """Returns the seconds since an owner touched its file, by the file server's clock.

    Files are opened, because an NFS client may answer `stat` from a cache that is a minute old.
    """
    clock = folder / f".clock.{secrets.token_hex(4)}"
    try:
        with clock.open("w") as file:
            now = os.fstat(file.fileno()).st_mtime
    finally:
        clock.unlink(missing_ok=True)
    with _path(folder, number).open() as file:
        return now - os.fstat(file.fileno()).st_mtime
