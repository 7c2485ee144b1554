"""Finds prepared TFDS directories and decodes them to arrays."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import logging

from cifar_jax.data import archive
from cifar_jax.errors import UserError

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_REQUIRED = ("dataset_info.json", "features.json")  # TFDS writes these files last


def find(name: str, data_dir: Path) -> Path | None:
    """Returns the directory of the newest complete version of a data set, or None if there is none.

    Raises:
      UserError: If there are version directories, but none of them is complete.
    """
    versions = sorted(
        (p for p in (data_dir / name).glob("*") if _VERSION.fullmatch(p.name)),
        key=lambda p: [int(n) for n in p.name.split(".")],
    )
    complete = [p for p in versions if all((p / file).is_file() for file in _REQUIRED)]
    if versions and not complete:
        raise _corrupt(versions[-1], f"no {' or '.join(_REQUIRED)}")
    return complete[-1] if complete else None


def decode(directory: Path) -> dict[str, np.ndarray]:
    """Reads a prepared directory with TFDS, which takes about 7 seconds.

    Returns:
      A dictionary with these arrays:
      train_images, test_images: uint8 [N, 32, 32, 3], in the official order.
      train_fine, test_fine: int32 [N] labels.
      fine_names: str [num_classes].
      train_coarse, test_coarse, coarse_names: the same for coarse labels, only for cifar100.
      mean, std: float32 [3], over the training images, in [0, 1] scale.

    Raises:
      UserError: If files are missing or corrupt, or the data set is incomplete.
    """
    from tensorflow_datasets.core.features.feature import json_format, message  # from protobuf

    # For corrupt files, ArrayRecord raises RuntimeError, protobuf its own types, and TFDS, Pillow
    # and json raise ValueError or OSError. Any other type is a programming error, which rebuilding
    # the files would not fix.
    corruption = (OSError, RuntimeError, ValueError, json_format.Error, message.Error)

    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # hides TFDS's advice to install OpenCV
    try:
        return _read(directory, archive.ARCHIVES[directory.parent.name]).arrays()
    except corruption as e:
        raise _corrupt(directory, f"{type(e).__name__}: {e}".splitlines()[0]) from e
    finally:
        logging.set_verbosity(verbosity)


def _read(directory: Path, official: archive.Archive) -> archive.Raw:
    import tensorflow_datasets as tfds  # takes about a second, which the cache avoids

    builder = tfds.builder_from_directory(directory)
    features = builder.info.features
    if missing := {"id", "image", *official.labels} - set(features):
        raise ValueError(f"no feature {', '.join(sorted(missing))}")
    images, labels = {}, {}
    for split, files in official.splits.items():
        num_images = sum(files.values())
        images[split] = np.zeros((num_images, 32, 32, 3), np.uint8)
        labels[split] = {label: np.full(num_images, -1, np.int32) for label in official.labels}
        for example in _examples(builder, split):
            i = int(example["id"].removeprefix(f"{split}_".encode()))
            if i >= num_images:
                raise ValueError(f"{split} has more than {num_images:,} images")
            images[split][i] = example["image"]
            for label, column in labels[split].items():
                column[i] = example[label]
        if (num_missing := np.count_nonzero(labels[split]["label"] < 0)) > 0:
            raise ValueError(f"{num_missing:,} of {num_images:,} {split} images are missing")
    return archive.Raw(images, labels, {label: features[label].names for label in official.labels})


def _examples(builder, split: str) -> Iterator[dict]:
    """Yields the examples of one split of `builder`, a `tfds.core.DatasetBuilder`."""
    if builder.info.file_format.value == "tfrecord":  # what TFDS itself writes, with TensorFlow
        for path in builder.info.splits[split].filepaths:
            for record in _tfrecords(path):
                yield builder.info.features.deserialize_example_np(record)
        return
    source = builder.as_data_source(split)
    for start in range(0, len(source), 500):  # reading one at a time takes twice as long
        yield from source.__getitems__(range(start, min(start + 500, len(source))))


def _tfrecords(path: Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file: length (8 bytes), CRC (4), data, CRC (4)."""
    with open(path, "rb") as f:
        while header := f.read(12):
            record = f.read(int.from_bytes(header[:8], "little"))
            if len(f.read(4)) != 4:
                raise ValueError(f"{path} is truncated")
            yield record


def _corrupt(directory: Path, reason: str) -> UserError:
    name, data_dir = directory.parent.name, directory.parent.parent
    return UserError(
        f"{directory} is incomplete or corrupt ({reason}). Rebuild it with "
        f"`python -m cifar_jax.prepare {name} --data_dir {data_dir} --overwrite`"
    )
