"""CIFAR-10, CIFAR-100 and a synthetic data set, as NumPy arrays on the host.

    dataset = data.load("cifar100", label="coarse", val_fraction=0.17)
    dataset.train.images  # uint8 [41500, 32, 32, 3]

This package does not import JAX, and imports TFDS only to prepare or decode a data set, so loading
from the decoded cache takes a fraction of a second.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar_jax.data import archive, cache, prepared, split, synthetic
from cifar_jax.errors import UserError, unknown

NAMES = ("cifar10", "cifar100", "synthetic")
LABELS = ("fine", "coarse")


class Split(NamedTuple):
    """Images and labels on the host."""

    images: np.ndarray  # uint8 [N, 32, 32, 3]
    labels: np.ndarray  # int32 [N], in [0, num_classes)


class Dataset(NamedTuple):
    """A data set on the host, ready to be copied to the device."""

    name: str
    label: str
    train: Split
    val: Split | None  # None if val_fraction is 0
    test: Split
    class_names: tuple[str, ...]
    mean: np.ndarray  # float32 [3], over the full official training split, in [0, 1] scale
    std: np.ndarray  # float32 [3], over the same images

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


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
        data_dir: the TFDS directory, or the directory where the official binary archive was
            unpacked. None and "" stand for $TFDS_DATA_DIR or, if unset, ~/tensorflow_datasets.
        val_fraction: the fraction of training images held out for validation, in [0, 1).
        val_seed: the seed that selects them, see split.train_val_indices.
        limit: keep only the first `limit` images of each split; 0 keeps all.

    Raises:
        UserError: an argument is invalid, the data is corrupt, or it is missing and cannot be
            downloaded.
    """
    if name not in NAMES:
        raise unknown("data set", name, NAMES)
    if label not in LABELS:
        raise unknown("label", label, LABELS)
    if label == "coarse" and name != "cifar100":
        raise UserError(f"{name} has no coarse labels (only cifar100 does): use data.label=fine")
    arrays = synthetic.make() if name == "synthetic" else _load(name, data_dir)
    train = Split(arrays["train_images"], arrays[f"train_{label}"])
    val = None
    if val_fraction:
        kept, held_out = split.train_val_indices(len(train.images), val_fraction, val_seed)
        val = Split(train.images[held_out], train.labels[held_out])
        train = Split(train.images[kept], train.labels[kept])
    test = Split(arrays["test_images"], arrays[f"test_{label}"])
    if limit:
        train, val, test = (
            part if part is None else Split(part.images[:limit], part.labels[:limit])
            for part in (train, val, test)
        )
    return Dataset(
        name=name,
        label=label,
        train=train,
        val=val,
        test=test,
        class_names=tuple(arrays[f"{label}_names"].tolist()),
        mean=arrays["mean"],
        std=arrays["std"],
    )


def is_there(name: str, data_dir: str | Path | None = None) -> bool:
    """Returns whether `load` can read the data set without downloading or preparing it."""
    data_dir = Path(data_dir or prepared.default_data_dir()).expanduser()
    return (
        name == "synthetic"
        or prepared.find(name, data_dir) is not None
        or (data_dir / archive.ARCHIVES[name].folder).is_dir()
    )


def _load(name: str, data_dir: str | Path | None) -> dict[str, np.ndarray]:
    data_dir = Path(data_dir or prepared.default_data_dir()).expanduser()
    directory = prepared.find(name, data_dir)
    if directory is None and (data_dir / archive.ARCHIVES[name].folder).is_dir():
        return _unpacked(name, data_dir)
    if directory is None:
        from cifar_jax.data import builders  # imports TFDS, which takes about a second

        directory = builders.prepare(name, data_dir)
    return cache.load(directory)


@functools.lru_cache(maxsize=2)  # for several runs in one process; reading takes 1 to 2 seconds
def _unpacked(name: str, data_dir: Path) -> dict[str, np.ndarray]:
    return prepared.arrays(archive.read(name, data_dir))
