"""The decoded cache: the arrays of a prepared directory in one .npz file, read in 0.1 seconds.

The file is in `<data_dir>/.cifar_jax/` or, if that is not writable, in the user's cache directory.
It records the names, sizes and modification times of the files it was decoded from, and is rebuilt
if those change or the cache is corrupt. It can be deleted at any time.
"""

import contextlib
import hashlib
import os
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cifar_jax.run import atomic

_FORMAT = 2  # increment it when the arrays change, so that older files are rebuilt
# What np.load and zipfile raise for files that are missing, unreadable or corrupt in any byte, and
# for a single array (TypeError) or pickled objects (ValueError) instead of an .npz file of arrays.
_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, SyntaxError, TypeError, ValueError),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error),
)


def load(directory: Path, decode: Callable[[Path], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the arrays of a prepared directory, if possible from the cache.

    Args:
      directory: `<data_dir>/<name>/<version>/`.
      decode: Called to read the directory if it is not in the cache; its exceptions propagate.
    """
    fingerprint = _fingerprint(directory)
    for path in _candidates(directory):
        arrays = _read(path)
        if arrays and str(arrays.pop("fingerprint", None)) == fingerprint:
            return arrays
    print(f"decoding {directory} (only the first time)", flush=True)
    arrays = decode(directory)
    for path in _candidates(directory):
        try:
            with atomic.replacing(path) as part, open(part, "wb") as f:
                np.savez(f, fingerprint=fingerprint, **arrays)
            return arrays
        except OSError as e:
            reason = f"{path.parent}: {e.strerror or e}"
    warnings.warn(
        f"cannot write the decoded cache, so every run decodes the data again ({reason})",
        stacklevel=2,
    )
    return arrays


def _candidates(directory: Path) -> list[Path]:
    """Returns the possible paths of the cache file, in order of preference."""
    name, version = directory.parts[-2:]
    paths = [directory.parent.parent / ".cifar_jax" / f"{name}-{version}.npz"]
    with contextlib.suppress(RuntimeError):  # this user has no home directory
        user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        # All data directories share the user's cache directory, so the file name includes a digest.
        digest = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:12]
        paths.append(user / "cifar_jax" / f"{name}-{version}-{digest}.npz")
    return paths


def _fingerprint(directory: Path) -> str:
    stats = {p.name: p.stat() for p in directory.iterdir()}
    return repr((_FORMAT, sorted((n, s.st_size, s.st_mtime_ns) for n, s in stats.items())))


def _read(path: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(path, allow_pickle=False) as file:  # verifies the checksums of the zip file
            return dict(file)
    except _UNREADABLE:  # the file is rebuilt
        return None
