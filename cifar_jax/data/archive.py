"""Reads the official binary CIFAR archives, packed or unpacked.

A record is one byte per label (CIFAR-100: coarse, then fine), then 3,072 bytes of pixels in
channel, row, column order. See https://www.cs.toronto.edu/~kriz/cifar.html
"""

import gzip
import hashlib
import tarfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar_jax.data import channels
from cifar_jax.errors import UserError, unknown


class Archive(NamedTuple):
    """The location and contents of an official archive."""

    url: str
    sha256: str  # of the .tar.gz
    folder: str  # the folder inside the .tar.gz
    splits: dict[str, dict[str, int]]  # {"train" or "test": {file: number of records}}
    labels: dict[str, tuple[str, int]]  # {label: (names file, num_classes)}, in record order

    @property
    def record_size(self) -> int:
        """The size of one record in bytes."""
        return len(self.labels) + 3072


_SITE = "https://www.cs.toronto.edu/~kriz/"
ARCHIVES = {
    "cifar10": Archive(
        url=_SITE + "cifar-10-binary.tar.gz",
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        folder="cifar-10-batches-bin",
        splits={
            "train": {f"data_batch_{i}.bin": 10_000 for i in range(1, 6)},
            "test": {"test_batch.bin": 10_000},
        },
        labels={"label": ("batches.meta.txt", 10)},
    ),
    "cifar100": Archive(
        url=_SITE + "cifar-100-binary.tar.gz",
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        folder="cifar-100-binary",
        splits={"train": {"train.bin": 50_000}, "test": {"test.bin": 10_000}},
        labels={
            "coarse_label": ("coarse_label_names.txt", 20),
            "label": ("fine_label_names.txt", 100),
        },
    ),
}


# {name of a label in this package: its name in TFDS and in this file}
LABELS = {"fine": "label", "coarse": "coarse_label"}


class Raw(NamedTuple):
    """A data set in the order of its archive."""

    images: dict[str, np.ndarray]  # {split: uint8 [N, 32, 32, 3]}
    labels: dict[str, dict[str, np.ndarray]]  # {split: {label: integers [N]}}
    names: dict[str, list[str]]  # {label: class names}

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the images, labels and names in the form that prepared.decode documents."""
        labels = {ours: theirs for ours, theirs in LABELS.items() if theirs in self.names}
        result = {f"{ours}_names": np.array(self.names[theirs]) for ours, theirs in labels.items()}
        for split, images in self.images.items():
            result[f"{split}_images"] = images
            for ours, theirs in labels.items():
                result[f"{split}_{ours}"] = self.labels[split][theirs].astype(np.int32)
        result["mean"], result["std"] = channels.mean_std(result["train_images"])
        return result


def find(name: str, data_dir: Path) -> Path | None:
    """Returns the folder to which the archive was unpacked in `data_dir`, or None."""
    folder = data_dir / ARCHIVES[name].folder
    return folder if folder.is_dir() else None


def read(name: str, source: str | Path) -> Raw:
    """Reads and validates a data set.

    Args:
      name: "cifar10" or "cifar100".
      source: The binary .tar.gz, the folder that it unpacks to, or the parent of that folder.

    Raises:
      UserError: If the source does not exist, cannot be read, is truncated, or is not this data
        set.
    """
    if name not in ARCHIVES:
        raise unknown("data set", name, ARCHIVES)
    archive, source = ARCHIVES[name], Path(source).expanduser()
    try:
        if source.is_dir():
            files = _from_folder(archive, source)
        elif source.exists():
            files = _from_tar(archive, source)
        else:
            raise UserError(f"{source} does not exist: {_expected(archive)}")
    except OSError as e:
        raise UserError(f"cannot read {source}: {e.strerror or e}") from e
    return _parse(archive, files, source)


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file as a hexadecimal string."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _sizes(archive: Archive) -> dict[str, int | None]:
    """Returns {file name: size in bytes}; the size is None for text files, which may vary."""
    binaries = {f: n for split in archive.splits.values() for f, n in split.items()}
    return {f: n * archive.record_size for f, n in binaries.items()} | {
        f: None for f, _ in archive.labels.values()
    }


def _expected(archive: Archive) -> str:
    return (
        f"expected the binary version, {archive.url.rsplit('/', 1)[1]}, "
        f"or a folder {archive.folder} that contains {', '.join(_sizes(archive))}"
    )


def _check_size(archive: Archive, file: str, size: int, source: Path) -> None:
    expected = _sizes(archive)[file]
    if expected is not None and size != expected:
        raise UserError(
            f"{source}: {file} has {size:,} bytes instead of {expected:,}: "
            f"it is {'truncated' if size < expected else 'not the official file'}"
        )


def _from_folder(archive: Archive, source: Path) -> dict[str, bytes]:
    if (source / archive.folder).is_dir():
        source = source / archive.folder
    files = {}
    for file in _sizes(archive):
        path = source / file
        if not path.is_file():
            raise UserError(f"{source} does not contain {file}: {_expected(archive)}")
        _check_size(archive, file, path.stat().st_size, source)
        files[file] = path.read_bytes()
    return files


def _from_tar(archive: Archive, source: Path) -> dict[str, bytes]:
    files = {}
    try:
        with tarfile.open(source) as tar:
            for member in tar:
                file = Path(member.name).name
                if not member.isfile() or file not in _sizes(archive):
                    continue
                # Check the size before reading, so that a wrong archive cannot fill the memory.
                _check_size(archive, file, member.size, source)
                files[file] = tar.extractfile(member).read()
            while tar.fileobj.read(1 << 20):  # verifies gzip's checksum, which follows the tar data
                pass
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise UserError(f"{source} is corrupt or not a .tar.gz file: {_expected(archive)}") from e
    missing = [file for file in _sizes(archive) if file not in files]
    if missing:
        raise UserError(f"{source} does not contain {missing[0]}: {_expected(archive)}")
    return files


def _parse(archive: Archive, files: dict[str, bytes], source: Path) -> Raw:
    names = {}
    for label, (file, num_classes) in archive.labels.items():
        names[label] = files[file].decode("ascii", "replace").split()
        if len(set(names[label])) != num_classes:
            raise UserError(f"{source}: {file} must contain {num_classes} distinct class names")
    images, labels = {}, {}
    for split, counts in archive.splits.items():
        records = np.concatenate(
            [np.frombuffer(files[f], np.uint8).reshape(-1, archive.record_size) for f in counts]
        )
        columns, pixels = np.split(records, [len(archive.labels)], axis=1)
        labels[split] = {k: columns[:, i].copy() for i, k in enumerate(archive.labels)}
        for label, (_, num_classes) in archive.labels.items():
            largest = labels[split][label].max()
            if largest >= num_classes:
                raise UserError(
                    f"{source}: the {split} files contain a {label} of {largest}, "
                    f"but there are only {num_classes} classes: these are not the official files"
                )
        pixels = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        images[split] = np.ascontiguousarray(pixels)
    return Raw(images, labels, names)
