"""Reads the official binary CIFAR archives, packed or unpacked, and other data in their layout."""

import gzip
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar_jax.data import channels
from cifar_jax.data.official import ARCHIVES, Archive
from cifar_jax.errors import UserError, unknown

# {name of a label in this package: its name in TFDS and in this file}
LABELS = {"fine": "label", "coarse": "coarse_label"}


class Raw(NamedTuple):
    """A data set in the order of its archive."""

    images: dict[str, np.ndarray]  # {split: uint8 [N, 32, 32, 3]}
    labels: dict[str, dict[str, np.ndarray]]  # {split: {label: integers [N]}}
    names: dict[str, list[str]]  # {label: class names}
    differences: list[str]  # as Archive.differences returns them

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the images, labels and names in the form that prepared.decode documents."""
        labels = {name: tfds_name for name, tfds_name in LABELS.items() if tfds_name in self.names}
        result = {
            f"{name}_names": np.array(self.names[tfds_name]) for name, tfds_name in labels.items()
        }
        for split, images in self.images.items():
            result[f"{split}_images"] = images
            for name, tfds_name in labels.items():
                result[f"{split}_{name}"] = self.labels[split][tfds_name].astype(np.int32)
        result["differences"] = np.array(self.differences, np.str_)
        result["mean"], result["std"] = channels.mean_std(result["train_images"])
        return result


def find(name: str, data_dir: Path) -> Path | None:
    """Returns the folder of the unpacked archive, which is `data_dir` or in `data_dir`, or None."""
    folder = ARCHIVES[name].folder
    unpacked = data_dir if data_dir.name == folder else data_dir / folder
    return unpacked if unpacked.is_dir() else None


def read(name: str, source: str | Path) -> Raw:
    """Reads and validates a data set.

    Files with different contents in the official layout are accepted, because users train on their
    own images; `Raw.differences` lists them. Contents that cannot be valid are refused.

    Args:
      name: "cifar10" or "cifar100".
      source: The binary .tar.gz, the folder that it unpacks to, or the parent of that folder.

    Raises:
      UserError: If the source does not exist, cannot be read, is truncated, does not have the
        layout of this data set, or fails the checks of `from_records`.
    """
    if name not in ARCHIVES:
        raise unknown("data set", name, ARCHIVES)
    archive, source = ARCHIVES[name], Path(source).expanduser()
    try:
        if source.is_dir():
            files = _from_folder(archive, source)
        elif source.is_file():  # a pipe or a device might never end
            files = _from_tar(archive, source)
        elif source.exists():
            raise UserError(f"{source} is not a file or a folder: {_expected(archive)}")
        else:
            raise UserError(f"{source} does not exist: {_expected(archive)}")
    except OSError as e:
        raise UserError(f"cannot read {source}: {e.strerror or e}") from e
    records = {
        split: np.concatenate(
            [np.frombuffer(files[f], np.uint8).reshape(-1, archive.record_size) for f in counts]
        )
        for split, counts in archive.splits.items()
    }
    try:
        names = {label: _names(files[file], file) for label, (file, _) in archive.labels.items()}
        return from_records(archive, records, names)
    except UserError as e:
        raise UserError(f"{source}: {e}") from e


def from_records(
    archive: Archive, records: Mapping[str, np.ndarray], names: Mapping[str, Sequence[str]]
) -> Raw:
    """Validates a data set and separates its images and labels.

    Args:
      archive: The official archive, whose layout the records have.
      records: {split: uint8 [N, record_size]}; see Archive.
      names: {label: class names}.

    Raises:
      UserError: If a label is out of range, class names are missing or repeated, or a file that is
        not the official one has more than one blank record.
    """
    for label, (file, num_classes) in archive.labels.items():
        if not len(names[label]) == len(set(names[label])) == num_classes:
            raise UserError(
                f"{file} must contain {num_classes} distinct class names, one on each line, but "
                f"has {len(names[label])} ({len(set(names[label]))} distinct)"
            )
    images, labels = {}, {}
    for split, rows in records.items():
        labels[split] = {label: rows[:, i].copy() for i, label in enumerate(archive.labels)}
        for label, (_, num_classes) in archive.labels.items():
            if (largest := labels[split][label].max()) >= num_classes:
                raise UserError(
                    f"the {split} files contain a {label} of {largest}, "
                    f"but there are only {num_classes} classes: these are not the official files"
                )
        images[split] = np.empty((len(rows), 32, 32, 3), np.uint8)
        for channel in range(3):  # three times as fast as a transposed copy
            plane = rows[:, len(archive.labels) + 1024 * channel :][:, :1024]
            images[split].reshape(-1, 1024, 3)[:, :, channel] = plane
    differences = archive.differences(records, names)
    if differences:
        _check_blank(archive, records)
    return Raw(images, labels, dict(names), differences)


def _check_blank(archive: Archive, records: Mapping[str, np.ndarray]) -> None:
    """Refuses files with parts that were never written, as after an interrupted copy."""
    for split, counts in archive.splits.items():
        start = 0
        for file, num_records in counts.items():
            rows = records[split][start : start + num_records]
            start += num_records
            if (num_blank := np.count_nonzero(~rows.any(axis=1))) > 1:
                raise UserError(
                    f"{num_blank:,} of the {num_records:,} records of {file} contain only zeros: "
                    "the file is incomplete; copy or download it again"
                )


def _names(content: bytes, file: str) -> list[str]:
    """Returns the class names, one on each line; lines at the end may be blank."""
    try:
        names = [line.strip() for line in content.decode("utf-8-sig").rstrip().splitlines()]
    except UnicodeDecodeError:
        raise UserError(f"{file} is not a text file") from None
    if not all(name and name.isprintable() for name in names):
        raise UserError(f"{file} has a blank line between class names, or is not a text file")
    return names


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
    sizes, files = _sizes(archive), {}
    # Twice the unpacked size of the official archive: without a limit, reading might never end.
    limit = 2 * sum(size or 0 for size in sizes.values()) + (1 << 20)
    too_large = UserError(f"{source} unpacks to more than {limit:,} bytes: {_expected(archive)}")
    try:
        with open(source, "rb") as f:
            is_gzip = f.read(2) == b"\x1f\x8b"
        with tarfile.open(source, "r:gz" if is_gzip else "r:") as tar:
            for member in tar:
                if member.size < 0 or member.offset_data + member.size > limit:
                    raise too_large
                file = Path(member.name).name
                if not member.isfile() or file not in sizes:
                    continue
                if file in files:
                    raise UserError(f"{source} contains more than one {file}")
                # Check the size before reading, so that a wrong archive cannot fill the memory.
                _check_size(archive, file, member.size, source)
                files[file] = tar.extractfile(member).read()
            while tar.fileobj.read(1 << 20):  # verifies gzip's checksum, which follows the tar data
                if tar.fileobj.tell() > limit:
                    raise too_large
    except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise UserError(f"{source} is corrupt or not a .tar.gz file: {_expected(archive)}") from e
    missing = [file for file in sizes if file not in files]
    if missing:
        raise UserError(f"{source} does not contain {missing[0]}: {_expected(archive)}")
    return files
