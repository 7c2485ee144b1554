"""Writes TFDS directories of CIFAR without TensorFlow.

The builders of TFDS read the archives and encode the images with TensorFlow. These subclasses read
with NumPy and encode with Pillow. Names, features, version and the shuffled order of records are
those of TFDS, so `tfds.data_source(name)` reads the result.
"""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.image_classification import cifar

from cifar_jax.data import archive, download, prepared
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


def prepare(
    name: str, data_dir: Path, source: str | Path | None = None, *, overwrite: bool = False
) -> Path:
    """Writes `<data_dir>/<name>/<version>/`, which takes about 15 seconds.

    The directory is renamed to its final name once it is complete, so interrupted and concurrent
    calls are safe.

    Args:
      name: "cifar10" or "cifar100".
      data_dir: The TFDS directory.
      source: As for archive.read; None downloads the official archive to `<data_dir>/downloads/`.
      overwrite: Whether to replace an existing directory, which is otherwise kept.

    Returns:
      The path of the directory.

    Raises:
      UserError: If the source is unusable, the download failed, or `data_dir` is not writable.
    """
    try:
        source = _download(name, data_dir) if source is None else Path(source).expanduser()
        raw = archive.read(name, source)
        if source.is_file() and archive.sha256(source) != archive.ARCHIVES[name].sha256:
            print(f"note: {source} is not the official file, but its records are valid")
        return _write(name, data_dir, raw, overwrite)
    except OSError as e:
        # Another process may have finished first; its directory is equivalent.
        if not overwrite and (found := prepared.find(name, data_dir)):
            return found
        raise UserError(f"cannot write {name} to {data_dir}: {e.strerror or e}") from e


def _download(name: str, data_dir: Path) -> Path:
    official = archive.ARCHIVES[name]
    path = data_dir / "downloads" / official.url.rsplit("/", 1)[1]
    if path.is_file() and archive.sha256(path) == official.sha256:
        return path
    print(f"{name} is not in {data_dir}: downloading {official.url}", flush=True)
    try:
        download.fetch(official.url, path, official.sha256)
    except UserError as e:
        raise UserError(
            f"{name} is not in {data_dir} and cannot be downloaded ({e}). Either download "
            f"{path.name} yourself and run `python -m cifar_jax.prepare {name} "
            f"--source ARCHIVE_OR_FOLDER --data_dir {data_dir}`; or pass "
            f"`--config.data.dir=DIRECTORY` with a directory in which {name} is prepared; or use "
            "`--config.data.name=synthetic`, which needs no download"
        ) from e
    return path


def _write(name: str, data_dir: Path, raw: archive.Raw, overwrite: bool) -> Path:
    print(f"{name}: writing TFDS files to {data_dir}", flush=True)
    atomic.sweep(data_dir / name, "incomplete.*")  # the names TFDS gives to unfinished directories
    builder = _BUILDERS[name](data_dir=data_dir, file_format="array_record")
    builder.raw = raw
    mode = tfds.GenerateMode
    config = tfds.download.DownloadConfig(
        try_download_gcs=False,
        download_mode=mode.REUSE_CACHE_IF_EXISTS if overwrite else mode.REUSE_DATASET_IF_EXISTS,
    )
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # hides "Downloading Unknown size"
        builder.download_and_prepare(download_config=config)
    return Path(builder.data_path)
