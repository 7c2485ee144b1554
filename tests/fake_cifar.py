"""Writes archives in the official layout with a few random images each, for the data tests."""

import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar_jax.data import archive


class Fake(NamedTuple):
    """An unpacked archive on disk and its contents."""

    folder: Path  # has the official name
    images: dict[str, np.ndarray]  # {split: uint8 [N, 32, 32, 3]}
    labels: dict[str, dict[str, np.ndarray]]  # {split: {"label" or "coarse_label": [N]}}
    names: dict[str, list[str]]


def shrink(monkeypatch) -> None:
    """Makes cifar_jax expect 8 records per training file and 4 per test file."""
    for name, official in archive.ARCHIVES.items():
        splits = {
            split: dict.fromkeys(files, 8 if split == "train" else 4)
            for split, files in official.splits.items()
        }
        monkeypatch.setitem(archive.ARCHIVES, name, official._replace(splits=splits))


def write(name: str, parent: Path, seed: int = 0) -> Fake:
    """Writes the unpacked archive of a data set, with as many records as `shrink` expects."""
    rng = np.random.default_rng(seed)
    official = archive.ARCHIVES[name]
    folder = parent / official.folder
    folder.mkdir(parents=True)
    names = {}
    for label, (file, num_classes) in official.labels.items():
        names[label] = [f"{label}_{i}" for i in range(num_classes)]
        (folder / file).write_text("\n".join(names[label]) + "\n\n")
    images, labels = {}, {}
    for split, files in official.splits.items():
        n = sum(files.values())
        images[split] = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
        labels[split] = {
            label: rng.integers(0, num_classes, n)
            for label, (_, num_classes) in official.labels.items()
        }
        start = 0
        for file, records in files.items():
            rows = range(start, start + records)
            (folder / file).write_bytes(b"".join(_record(images, labels, split, i) for i in rows))
            start += records
    return Fake(folder, images, labels, names)


def _record(images, labels, split: str, i: int) -> bytes:
    columns = bytes(int(column[i]) for column in labels[split].values())
    return columns + b"".join(images[split][i, :, :, c].tobytes() for c in range(3))


def pack(folder: Path) -> Path:
    """Packs a folder into a .tar.gz in the layout of the official archives."""
    path = folder.parent / f"{folder.name}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, folder.name)
    return path
