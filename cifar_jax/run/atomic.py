"""Files that are either whole or absent, whatever kills the process that writes them."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary file in the same folder, which becomes `path` unless the body raises.

    Every process has its own temporary file, so two of them may write the same path at once.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, f"{path.name}.*.part")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f"{path.name}.", suffix=".part")
    os.close(handle)
    try:
        yield Path(name)
        # mkstemp grants nobody else access; a data folder is often shared by a group.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)


def sweep(folder: Path, pattern: str, age: float = 3600.0) -> None:
    """Deletes what killed processes left: entries that nobody wrote to for `age` seconds."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):  # somebody else's, or already gone
            if time.time() - path.stat().st_mtime > age:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
