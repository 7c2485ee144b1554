"""Writes files atomically: a reader sees a complete file or none, even if the writer is killed."""

import contextlib
import glob
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary file in the same folder, which replaces `path` unless the body raises.

    Every writer has its own temporary file, so several processes may write the same path at the
    same time.

    Raises:
      OSError: If the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, f"{glob.escape(path.name)}.*.part")
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    # Unlike mkstemp's 0o600, these permissions respect the umask: groups often share data folders.
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)


def sweep(folder: Path, pattern: str, age: float = 3600.0) -> None:
    """Deletes leftovers of killed processes: matches last modified more than `age` seconds ago."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):  # owned by another user, or already deleted
            if time.time() - path.stat().st_mtime > age:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
