"""The folders in which a data set is prepared until its files are complete and take their place."""

import contextlib
from pathlib import Path

PREFIX = "incomplete."  # the start of their names
_REPLACED = "replaced"  # the files of the previous preparation, while new ones take their place


def replace(directory: Path, new: Path, folder: Path) -> None:
    """Replaces a directory, if it exists, by a new one; after an error, the previous one is back.

    Args:
      directory: The path of the previous directory and, in the end, of the new one.
      new: The new directory, which is `folder`/<name of the data set>/<version>.
      folder: The unfinished folder. The previous directory is moved there.
    """
    replaced = folder / _REPLACED
    try:
        if directory.exists():
            directory.rename(replaced)
        new.rename(directory)
    except BaseException:
        if replaced.exists() and not directory.exists():
            replaced.rename(directory)
        raise


def finish_replacing(parent: Path) -> None:
    """Moves new directories to their places if `replace` was killed between its two renames.

    Args:
      parent: The folder of a data set, which contains its versions and unfinished folders.
    """
    for replaced in parent.glob(f"{PREFIX}*/{_REPLACED}"):
        for new in (replaced.parent / parent.name).glob("*"):
            with contextlib.suppress(OSError):  # its place is taken, or the folder is read-only
                new.rename(parent / new.name)
