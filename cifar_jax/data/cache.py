"""The decoded cache: a prepared directory as one .npz file, read in a tenth of a second.

It lies in `<data_dir>/.cifar_jax/`, or in the user's cache folder where that cannot be written.
It carries the names, sizes and times of the files that it was made from, and is made anew when
they change or when it is damaged: deleting it is always safe.
"""

import hashlib
import os
import warnings
from pathlib import Path

import numpy as np

from cifar_jax.data import prepared
from cifar_jax.run import atomic

_FORMAT = 1  # raise it when the arrays change: older files are then made anew


def load(directory: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a prepared directory (see prepared.decode), from the cache if it can.

    Raises:
        UserError: the directory is incomplete or damaged.
    """
    fingerprint = _fingerprint(directory)
    for path in _places(directory):
        arrays = _read(path)
        if arrays and str(arrays.pop("fingerprint", None)) == fingerprint:
            return arrays
    print(f"decoding {directory}, once", flush=True)
    arrays = prepared.decode(directory)
    for path in _places(directory):
        try:
            with atomic.replacing(path) as part, open(part, "wb") as f:
                np.savez(f, fingerprint=fingerprint, **arrays)
            return arrays
        except OSError as e:
            reason = f"{path.parent}: {e.strerror or e}"
    warnings.warn(f"every start decodes, for nothing can be kept ({reason})", stacklevel=2)
    return arrays


def _places(directory: Path) -> list[Path]:
    """Returns where the cache may lie, the preferred place first."""
    name, version = directory.parts[-2:]
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cifar_jax"
    # Several data folders share the user's cache, so the name there tells them apart.
    digest = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]
    return [
        directory.parent.parent / ".cifar_jax" / f"{name}-{version}.npz",
        user / f"{name}-{version}-{digest}.npz",
    ]


def _fingerprint(directory: Path) -> str:
    stats = {p.name: p.stat() for p in directory.iterdir()}
    return repr((_FORMAT, sorted((n, s.st_size, s.st_mtime_ns) for n, s in stats.items())))


def _read(path: Path) -> dict[str, np.ndarray] | None:
    try:
        with np.load(path) as file:  # a zip file: its checksums are verified on the way
            return dict(file)
    except Exception:  # missing, unreadable, damaged: whatever it is, it can be made anew
        return None
