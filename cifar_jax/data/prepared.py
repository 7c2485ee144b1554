"""Prepared TFDS directories: finding them, and decoding them to arrays."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from absl import logging

from cifar_jax.data import archive, channels
from cifar_jax.errors import UserError

# What the suite calls a label, and what TFDS calls it.
_FEATURES = {"fine": "label", "coarse": "coarse_label"}
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_REQUIRED = ("dataset_info.json", "features.json")  # TFDS writes them last


def default_data_dir() -> Path:
    """Returns where TFDS looks when it is not told: $TFDS_DATA_DIR or ~/tensorflow_datasets."""
    return Path(os.environ.get("TFDS_DATA_DIR") or Path.home() / "tensorflow_datasets")


def find(name: str, data_dir: Path) -> Path | None:
    """Returns the directory of a data set's newest version, or None if there is none.

    Raises:
        UserError: there are version directories, but none is complete.
    """
    versions = sorted(
        (p for p in (data_dir / name).glob("*") if _VERSION.fullmatch(p.name)),
        key=lambda p: [int(n) for n in p.name.split(".")],
    )
    complete = [p for p in versions if all((p / file).is_file() for file in _REQUIRED)]
    if versions and not complete:
        raise _damaged(versions[-1], f"no {' or '.join(_REQUIRED)}")
    return complete[-1] if complete else None


def arrays(raw: archive.Raw) -> dict[str, np.ndarray]:
    """Returns what `decode` does, of an archive that was read."""
    labels = {label: f for label, f in _FEATURES.items() if f in raw.names}
    found = {f"{label}_names": np.array(raw.names[f]) for label, f in labels.items()}
    for split, images in raw.images.items():
        found[f"{split}_images"] = images
        for label, feature in labels.items():
            found[f"{split}_{label}"] = raw.labels[split][feature].astype(np.int32)
    found["mean"], found["std"] = channels.mean_std(found["train_images"])
    return found


def decode(directory: Path) -> dict[str, np.ndarray]:
    """Reads a prepared directory through TFDS; takes about 7 seconds.

    Returns:
        train_images, test_images: uint8 [N, 32, 32, 3], in the official order;
        train_fine, test_fine: int32 [N]; fine_names: str [classes];
        the same with "coarse" for cifar100;
        mean, std: float32 [3] of the training images in [0, 1] scale.

    Raises:
        UserError: files are missing or damaged, or it is not the whole data set.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # TFDS recommends OpenCV: not for what happens once
    try:
        return _decode(directory, archive.ARCHIVES[directory.parent.name])
    except ImportError:
        raise
    except Exception as e:  # TFDS and ArrayRecord raise a dozen types for a damaged file
        raise _damaged(directory, f"{type(e).__name__}: {e}".splitlines()[0]) from e
    finally:
        logging.set_verbosity(verbosity)


def _decode(directory: Path, official: archive.Archive) -> dict[str, np.ndarray]:
    import tensorflow_datasets as tfds  # a second that a start from the cache need not pay

    builder = tfds.builder_from_directory(directory)
    labels = {label: f for label, f in _FEATURES.items() if f in official.labels}
    arrays = {f"{k}_names": np.array(builder.info.features[f].names) for k, f in labels.items()}
    for split, files in official.splits.items():
        num_images = sum(files.values())
        images = np.zeros((num_images, 32, 32, 3), np.uint8)
        columns = {label: np.full(num_images, -1, np.int32) for label in labels}
        for example in _examples(builder, split):
            i = int(example["id"].removeprefix(f"{split}_".encode()))
            images[i] = example["image"]
            for label, feature in labels.items():
                columns[label][i] = example[feature]
        if (missing := np.count_nonzero(columns["fine"] < 0)) > 0:
            raise ValueError(f"{missing:,} of {num_images:,} {split} images are missing")
        arrays[f"{split}_images"] = images
        arrays |= {f"{split}_{label}": column for label, column in columns.items()}
    arrays["mean"], arrays["std"] = channels.mean_std(arrays["train_images"])
    return arrays


def _examples(builder, split: str) -> Iterator[dict]:
    """Yields the examples of one split of a `tfds.core.DatasetBuilder`."""
    if builder.info.file_format.value == "tfrecord":  # as stock TFDS writes with TensorFlow
        for path in builder.info.splits[split].filepaths:
            for record in _tfrecords(path):
                yield builder.info.features.deserialize_example_np(record)
        return
    source = builder.as_data_source(split)
    for start in range(0, len(source), 500):  # singly, reading takes twice as long
        yield from source.__getitems__(range(start, min(start + 500, len(source))))


def _tfrecords(path: Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file: length (8 bytes), CRC (4), data, CRC (4)."""
    with open(path, "rb") as f:
        while header := f.read(12):
            record = f.read(int.from_bytes(header[:8], "little"))
            if len(f.read(4)) != 4:
                raise ValueError(f"{path} is truncated")
            yield record


def _damaged(directory: Path, reason: str) -> UserError:
    name, data_dir = directory.parent.name, directory.parent.parent
    return UserError(
        f"{directory} is incomplete or damaged ({reason}). Write it again with "
        f"`python -m cifar_jax.prepare {name} --data_dir {data_dir} --overwrite`"
    )
