"""CIFAR-10, CIFAR-100 and a synthetic data set, as NumPy arrays on the host.

    dataset = data.load("cifar100", label="coarse", val_fraction=0.17)
    dataset.train.images  # uint8 [41500, 32, 32, 3]

This package does not import JAX, and imports TFDS only to prepare or decode a data set, so loading
from the decoded cache takes a fraction of a second.
"""

import functools
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar_jax.data import archive, cache, official, prepared, split, synthetic
from cifar_jax.errors import UserError, unknown

NAMES = ("cifar10", "cifar100", "synthetic")
LABELS = ("fine", "coarse")


class Split(NamedTuple):
    """Images and labels on the host."""

    images: np.ndarray  # uint8 [N, 32, 32, 3]
    labels: np.ndarray  # int32 [N], in [0, num_classes)


class DatasetInfo(NamedTuple):
    """What a network needs to know about a data set: its classes and its mean and std."""

    class_names: tuple[str, ...]  # in the order of the labels
    mean: np.ndarray  # float32 [3], over the full official training split, on a [0, 1] scale
    std: np.ndarray  # float32 [3], over the same images

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


class Dataset(NamedTuple):
    """A data set on the host, ready to be copied to the device."""

    train: Split
    val: Split | None  # None if val_fraction is 0
    test: Split
    info: DatasetInfo

    @property
    def checksum(self) -> int:
        """A CRC-32 of the images and labels of all splits, in their order."""
        crc = 0
        for part in filter(None, (self.train, self.val, self.test)):
            for array in part:
                crc = zlib.crc32(np.ascontiguousarray(array), crc)
        return crc


def num_classes(name: str, label: str) -> int:
    """Returns the number of classes of a data set, without loading it."""
    return 100 if (name, label) == ("cifar100", "fine") else 20 if label == "coarse" else 10


def load(
    name: str,
    *,
    label: str = "fine",
    data_dir: str | Path | None = None,
    val_fraction: float = 0.0,
    val_seed: int = 42,
    limit: int = 0,
) -> Dataset:
    """Loads a data set, and prepares it on first use.

    Args:
      name: "cifar10", "cifar100" or "synthetic".
      label: "fine", or for cifar100 also "coarse" (its 20 superclasses).
      data_dir: The TFDS directory, or the directory to which the official binary archive was
        unpacked. None and "" mean $TFDS_DATA_DIR or, if that is unset, ~/tensorflow_datasets. Only
        the latter is created if it does not exist.
      val_fraction: The fraction of training images held out for validation, in [0, 1).
      val_seed: The seed that selects these images; see split.train_val_indices.
      limit: The number of images of each split to keep, from the start; 0 keeps all.

    If the data set is not the official one, a note is printed; see archive.read.

    Raises:
      UserError: If an argument is invalid, the data is corrupt, or the data is missing and cannot
        be downloaded.
    """
    if name not in NAMES:
        raise unknown("data set", name, NAMES)
    if label not in LABELS:
        raise unknown("label", label, LABELS)
    if label == "coarse" and name != "cifar100":
        raise UserError(f"{name} has no coarse labels (only cifar100 does): use data.label=fine")
    if name == "synthetic":
        arrays = _synthetic()
    else:
        source = _find(name, resolve(data_dir)) or _prepare(name, data_dir)
        arrays = _decode(name, source)
        _note(name, source, tuple(arrays["differences"].tolist()))
    train = Split(arrays["train_images"], arrays[f"train_{label}"])
    test, val = Split(arrays["test_images"], arrays[f"test_{label}"]), None
    if val_fraction:
        kept, held_out = split.train_val_indices(len(train.images), val_fraction, val_seed)
        train, val = (Split(*(array[part] for array in train)) for part in (kept, held_out))
    if limit:
        train, val, test = (
            part if part is None else Split(part.images[:limit], part.labels[:limit])
            for part in (train, val, test)
        )
    names = tuple(arrays[f"{label}_names"].tolist())
    return Dataset(train, val, test, DatasetInfo(names, arrays["mean"], arrays["std"]))


def is_there(name: str, data_dir: str | Path | None = None) -> bool:
    """Returns whether `load` can read the data set without downloading or preparing it."""
    return name == "synthetic" or _find(name, resolve(data_dir)) is not None


def resolve(data_dir: str | Path | None) -> Path:
    """Returns a data directory with ~ expanded; for None and "", the default one of `load`.

    Raises:
      UserError: If there is no such home directory.
    """
    path = Path(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")
    try:
        return path.expanduser()
    except RuntimeError as e:  # no $HOME and no entry for the user, as in some containers
        raise UserError(
            f"{path}: there is no such home directory; set data.dir (--data_dir) or $TFDS_DATA_DIR"
        ) from e


def _find(name: str, data_dir: Path) -> Path | None:
    """Returns the prepared TFDS directory, else the unpacked archive, else None."""
    with prepared.searching(data_dir):
        return prepared.find(name, data_dir) or archive.find(name, data_dir)


def _prepare(name: str, data_dir: str | Path | None) -> Path:
    directory = resolve(data_dir)
    if not directory.is_dir() and (data_dir or os.environ.get("TFDS_DATA_DIR")):
        field = "data.dir" if data_dir else "$TFDS_DATA_DIR"
        state = "is not a directory" if directory.exists() else "does not exist"
        raise UserError(
            f"{field}: {directory} {state}; "
            f"to create one, run `python -m cifar_jax.prepare {name} --data_dir DIRECTORY`"
        )
    for folder in directory.resolve().parents[:2] if data_dir else ():
        if any(folder.glob(f"{name}/*/dataset_info.json")) or archive.find(name, folder):
            raise UserError(
                f"{name} is not in {directory}, but in {folder}: set data.dir (--data_dir) to that"
            )
    from cifar_jax.data import builders  # imports TFDS, which takes about a second

    return builders.prepare(name, directory)


@functools.cache  # once per process
def _note(name: str, source: Path, differences: tuple[str, ...]) -> None:
    if differences:
        print(official.note(name, source, differences), flush=True)


def _decode(name: str, source: Path) -> dict[str, np.ndarray]:
    """Returns the arrays (see prepared.decode) in a directory from `_find` or `_prepare`."""
    if source.name == archive.ARCHIVES[name].folder:
        return _unpacked(name, source)
    return cache.load(source, prepared.decode)


# The results of the next two functions are kept for later loads in the same process, because each
# takes 1 to 2 seconds.
_synthetic = functools.cache(synthetic.make)


@functools.lru_cache(maxsize=2)
def _unpacked(name: str, folder: Path) -> dict[str, np.ndarray]:
    return archive.read(name, folder).arrays()
