"""Writes TFDS directories of CIFAR without TensorFlow.

The builders of TFDS read the archives and encode the images with TensorFlow. These subclasses read
with NumPy and encode with Pillow. Names, features, version and the shuffled order of records are
those of TFDS, so `tfds.data_source(name)` reads the result.
"""

import contextlib
import errno
import io
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.image_classification import cifar

from cifar_jax.data import archive, download, official, prepared, unfinished
from cifar_jax.errors import UserError
from cifar_jax.run import atomic


class _FromArchive:
    """Replaces the parts of a TFDS CIFAR builder that need TensorFlow or the network."""

    raw: archive.Raw
    url_infos: dict = {}  # TFDS's checksums are not needed: _download verifies its own

    def _info(self) -> tfds.core.DatasetInfo:
        info = super()._info()
        # TFDS would look for metadata in a cloud bucket, which is not needed here.
        info.initialize_from_bucket = lambda: None
        return info

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        del dl_manager  # the archive has already been read
        for label, names in self.raw.names.items():
            self.info.features[label].names = names
        return {split: self._generate_examples(split) for split in self.raw.images}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        labels = self.raw.labels[split]
        for i, image in enumerate(self.raw.images[split]):
            example = {label: int(column[i]) for label, column in labels.items()}
            example["id"] = f"{split}_{i:05d}"
            example["image"] = Image.fromarray(image)  # an array would be encoded by TensorFlow
            yield i, example


# TFDS derives the name of a data set from its class, and refuses to register a name twice.
class Cifar10(_FromArchive, cifar.Cifar10, skip_registration=True):
    """CIFAR-10."""


class Cifar100(_FromArchive, cifar.Cifar100, skip_registration=True):
    """CIFAR-100."""


_BUILDERS = {"cifar10": Cifar10, "cifar100": Cifar100}
# Bytes per official image. Images of other data sets may take more.
_DOWNLOAD, _TFDS_FILES = 2_850, 2_400


def prepare(
    name: str, data_dir: Path, source: str | Path | None = None, *, overwrite: bool = False
) -> Path:
    """Writes `<data_dir>/<name>/<version>/`, which takes about 15 seconds.

    The directory is renamed to its final name once it is complete, so interrupted, killed and
    concurrent calls are safe. If an exception is raised, new files and empty folders are removed,
    and the previous directory is kept.

    A source that is not the official one is accepted with a note, because users may train on their
    own images. A mistake does not go unnoticed: data.load finds the same differences in the files
    written here, and prints the note at the start of every run.

    Args:
      name: "cifar10" or "cifar100".
      data_dir: The TFDS directory.
      source: As for archive.read; None downloads the official archive to `<data_dir>/downloads/`.
      overwrite: Whether to replace an existing directory, which is otherwise kept.

    Returns:
      The path of the directory.

    Raises:
      UserError: If the source is unusable, the download failed, or `data_dir` is not writable or
        has too little space.
    """
    try:
        if source is None:
            source = _download(name, data_dir)
        raw = archive.read(name, source)
        if raw.differences:
            print(official.note(name, source, raw.differences), flush=True)
        print(f"{name}: writing TFDS files to {data_dir}", flush=True)
        with _folder(data_dir / name):
            unfinished.finish_replacing(data_dir / name)  # or else its files would be deleted
            atomic.sweep(data_dir / name, f"{unfinished.PREFIX}*")
            _require_space(name, data_dir, _TFDS_FILES)
            return _write(name, data_dir, raw, overwrite)
    except OSError as e:
        # Another process may have finished first; its directory is equivalent.
        if not overwrite and (directory := prepared.find(name, data_dir)):
            return directory
        code, reason = e.errno, e.strerror or str(e)
    # After the except block: while the exception exists, the unfinished file still takes up space.
    if code in (errno.ENOSPC, errno.EDQUOT):
        _require_space(name, data_dir, _TFDS_FILES)
    raise UserError(f"cannot write {name} to {data_dir}: {reason}")


def _download(name: str, data_dir: Path) -> Path:
    facts = official.ARCHIVES[name]
    path = data_dir / "downloads" / facts.url.rsplit("/", 1)[1]
    if path.is_file() and download.digest(path) == facts.sha256:
        return path
    print(f"{name} is not in {data_dir}: downloading {facts.url}", flush=True)
    try:
        with _folder(path.parent):
            _require_space(name, data_dir, _DOWNLOAD + _TFDS_FILES)
            download.fetch(facts.url, path, facts.sha256)
    except UserError as e:
        raise UserError(
            f"{name} is not in {data_dir} and cannot be downloaded ({e}). Either download "
            f"{path.name} yourself and run `python -m cifar_jax.prepare {name} "
            f"--source ARCHIVE_OR_FOLDER --data_dir {shlex.quote(str(data_dir))}`; or pass "
            f"`--config.data.dir=DIRECTORY` with a directory in which {name} is prepared; or use "
            "`--config.data.name=synthetic`, which needs no download"
        ) from e
    return path


def _write(name: str, data_dir: Path, raw: archive.Raw, overwrite: bool) -> Path:
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix=unfinished.PREFIX, dir=data_dir / name) as scratch:
        builder = _BUILDERS[name](data_dir=scratch, file_format="array_record")
        builder.raw = raw
        # Redirecting stdout hides "Downloading Unknown size".
        with contextlib.redirect_stdout(io.StringIO()), _os_errors():
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False)
            )
        directory = data_dir / name / str(builder.version)
        new = Path(builder.data_path)
        if overwrite:
            unfinished.replace(directory, new, Path(scratch))
        else:
            new.rename(directory)
        return directory


@contextlib.contextmanager
def _os_errors() -> Iterator[None]:
    """Converts ArrayRecord's RuntimeErrors for system errors, such as a full disk, to OSError."""
    try:
        yield
    except RuntimeError as e:
        if match := re.search(r"\w+\(\) failed: ([^;\n]+)", str(e)):
            code = next((c for c in errno.errorcode if os.strerror(c) == match[1]), errno.EIO)
            raise OSError(code, match[1]) from e
        raise


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[None]:
    """Creates a folder and its parents; if the body raises, removes the new ones that are empty."""
    made = [p for p in (path, *path.parents) if not p.exists()]
    path.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for p in made:
            with contextlib.suppress(OSError):  # another process uses it
                p.rmdir()
        raise


def _require_space(name: str, folder: Path, num_bytes: float) -> None:
    """Raises UserError if there is less free space than `num_bytes` per official image."""
    needed = num_bytes * sum(
        sum(files.values()) for files in official.ARCHIVES[name].splits.values()
    )
    folder = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"{name} needs {needed / 1e6:.0f} MB in {folder}, where {free / 1e6:.0f} MB are free: "
            f"free another {(needed - free) / 1e6:.0f} MB or choose another folder"
        )
