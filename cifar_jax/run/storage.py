"""Deals with the file system under a workdir: full disks, and paths that Orbax cannot handle."""

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cifar_jax.errors import UserError

# The errno of a file system that is full, or that cannot be written.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
# Paths that contain only characters known to work with Orbax and TensorStore.
_PLAIN = r"[\w/.,=+@%~ -]*"


def saved_steps(checkpoints: Path) -> list[int]:
    """Returns the steps of the checkpoints in a folder, in ascending order."""
    names = [path.name for path in checkpoints.glob("*") if path.is_dir()]
    # Steps are int32, and Orbax writes them without leading zeros.
    steps = (int(name) for name in names if re.fullmatch("0|[1-9][0-9]{0,9}", name))
    return sorted(step for step in steps if step < 2**31)


@contextlib.contextmanager
def writing(
    folder: Path, size: int = 0, *, then: str = "the same command continues"
) -> Iterator[None]:
    """Turns the errors of a full disk or a read-only file system into a UserError.

    Args:
      folder: The folder that the body writes to.
      size: The number of bytes that the body writes, or 0 if it is not known. If there is too
        little space, the error is raised before the body, in which TensorStore would print a
        traceback for every array. If the body raises any other error while there is too little
        space, that is the reason: Orbax writes in several threads, and may raise, for example,
        that a file is missing which another thread could not write.
      then: What the user can do afterwards.
    """
    try:
        if size and size > shutil.disk_usage(folder).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        yield
    except Exception as error:
        number = error_number(error)
        if number not in _UNWRITABLE and size:
            number = _error_of_allocating(folder, size)
        if number not in _UNWRITABLE:
            raise
        text = f"{folder} cannot be written: {os.strerror(number)}"
        if number == errno.ENOSPC and size:
            text += f" ({_lacking(folder, size)})"
        when = "there is space" if number in (errno.ENOSPC, errno.EDQUOT) else "it can be written"
        raise UserError(f"{text}. Once {when}, {then}") from error


def error_number(error: Exception) -> int | None:
    """Returns the errno of an exception; those of TensorStore contain it in their text."""
    if isinstance(error, OSError):
        return error.errno
    match = re.search(r"os_error_code='(\d+)'", str(error))
    return int(match[1]) if match else None


def _lacking(folder: Path, size: int) -> str:
    """Says what a full file system lacks for `size` bytes: space, or inodes."""
    status = os.statvfs(folder)
    if status.f_files and not status.f_favail:  # some file systems have no limit, and say 0
        return "it cannot hold more files"
    free = shutil.disk_usage(folder).free
    return f"{size / 1e6:,.1f} MB are needed, and {free / 1e6:,.1f} MB are free"


def _error_of_allocating(folder: Path, size: int) -> int | None:
    """Returns the errno of allocating `size` bytes in a folder, or None if that succeeds."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        return error.errno
    return None


@contextlib.contextmanager
def plain_path(directory: Path) -> Iterator[Path]:
    """Yields a path that Orbax can handle: that of the folder, or of a link to it.

    Orbax uses the whole path as a pattern when it collects the files of a checkpoint: in a folder
    `lr[0.002]` it would find none and report no error. TensorStore interprets a backslash and "gs:"
    and accepts only UTF-8.
    """
    if re.fullmatch(_PLAIN, str(directory), re.ASCII):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="cifar_jax_") as folder:
        link = Path(folder) / "checkpoints"
        if not re.fullmatch(_PLAIN, str(link), re.ASCII):
            raise UserError(
                "the path in $TMPDIR may contain only ASCII letters, digits, spaces and "
                f"the characters / . , = + @ % ~ _ -, got {folder}"
            )
        link.symlink_to(directory, target_is_directory=True)
        yield link
