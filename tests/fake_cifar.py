"""Writes archives in the official layout with a few random images each, for the data tests."""

import contextlib
import json
import tarfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tensorboardX.record_writer import RecordWriter

from cifar_jax.data import archive, official


class Fake(NamedTuple):
    """An unpacked archive on disk and its contents."""

    folder: Path  # has the official name
    images: dict[str, np.ndarray]  # {split: uint8 [N, 32, 32, 3]}
    labels: dict[str, dict[str, np.ndarray]]  # {split: {"label" or "coarse_label": [N]}}
    names: dict[str, list[str]]


def shrink(monkeypatch) -> None:
    """Makes cifar_jax expect 8 records per training file and 4 per test file."""
    for name, facts in archive.ARCHIVES.items():
        splits = {
            split: dict.fromkeys(files, 8 if split == "train" else 4)
            for split, files in facts.splits.items()
        }
        monkeypatch.setitem(archive.ARCHIVES, name, facts._replace(splits=splits))


def write(name: str, parent: Path, seed: int = 0) -> Fake:
    """Writes the unpacked archive of a data set, with as many records as `shrink` expects."""
    rng = np.random.default_rng(seed)
    facts = archive.ARCHIVES[name]
    folder = parent / facts.folder
    folder.mkdir(parents=True)
    names = {}
    for label, (file, num_classes) in facts.labels.items():
        names[label] = [f"{label}_{i}" for i in range(num_classes)]
        (folder / file).write_text("\n".join(names[label]) + "\n\n")
    images, labels = {}, {}
    for split, files in facts.splits.items():
        n = sum(files.values())
        images[split] = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
        labels[split] = {
            label: rng.integers(0, num_classes, n)
            for label, (_, num_classes) in facts.labels.items()
        }
        start = 0
        for file, records in files.items():
            rows = range(start, start + records)
            (folder / file).write_bytes(b"".join(_record(images, labels, split, i) for i in rows))
            start += records
    return Fake(folder, images, labels, names)


def make_official(monkeypatch, name: str, fake: Fake) -> None:
    """Makes cifar_jax take the records and names of `fake` for those of the official data set."""
    facts, digests = archive.ARCHIVES[name], {}
    for split, files in facts.splits.items():
        content = b"".join((fake.folder / file).read_bytes() for file in files)
        records = np.frombuffer(content, np.uint8).reshape(-1, facts.record_size)
        digests[split] = official.digest(records)
    names = {label: tuple(values) for label, values in fake.names.items()}
    monkeypatch.setitem(archive.ARCHIVES, name, facts._replace(digests=digests, names=names))


def _record(images, labels, split: str, i: int) -> bytes:
    columns = bytes(int(column[i]) for column in labels[split].values())
    return columns + b"".join(images[split][i, :, :, c].tobytes() for c in range(3))


def use_tfrecords(directory: Path) -> None:
    """Rewrites a prepared directory in the default format of TFDS, with the same records."""
    data_source = pytest.importorskip("array_record.python.array_record_data_source")
    for shard in list(directory.glob("*.array_record*")):
        source = data_source.ArrayRecordDataSource([str(shard)])
        path = shard.with_name(shard.name.replace("array_record", "tfrecord"))
        with contextlib.closing(RecordWriter(str(path))) as writer:
            for record in source.__getitems__(range(len(source))):
                writer.write(record)
        shard.unlink()
    info = directory / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))


def pack(folder: Path, mode: str = "w:gz") -> Path:
    """Packs a folder into a .tar.gz (a .tar with mode "w:") like the official archives."""
    path = folder.parent / f"{folder.name}.tar{mode[1:].replace(':', '.').rstrip('.')}"
    with tarfile.open(path, mode) as tar:
        tar.add(folder, folder.name)
    return path
