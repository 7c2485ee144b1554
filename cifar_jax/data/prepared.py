"""Finds prepared TFDS directories and decodes them to arrays."""

import contextlib
import io
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from PIL import Image, UnidentifiedImageError

from cifar_jax.data import archive, tfrecord, unfinished
from cifar_jax.data.official import ARCHIVES, Archive
from cifar_jax.errors import UserError

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_REQUIRED = ("dataset_info.json", "features.json")  # TFDS writes these files last
# What TFDS raises, in addition to protobuf's json_format.Error, for missing or wrong metadata.
_INVALID_METADATA = (
    *(AssertionError, AttributeError, ImportError, LookupError, NotImplementedError),
    *(RuntimeError, TypeError, ValueError),
)


@contextlib.contextmanager
def searching(data_dir: Path) -> Iterator[None]:
    """Turns the errors of a directory that cannot be searched into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {data_dir}: {error.strerror or error}") from error


def find(name: str, data_dir: Path) -> Path | None:
    """Returns the directory of the newest complete version of a data set, or None if there is none.

    Raises:
      UserError: If there are version directories, but none of them is complete.
    """
    unfinished.finish_replacing(data_dir / name)
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
      mean, std: float32 [3], over the training images, on a [0, 1] scale.
      differences: str [n], the files that differ from the official ones; see archive.Raw.

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
        return _read(directory, ARCHIVES[directory.parent.name]).arrays()
    except UserError as e:
        raise _corrupt(directory, str(e)) from e
    except corruption as e:
        raise _corrupt(directory, f"{type(e).__name__}: {e}") from e
    finally:
        logging.set_verbosity(verbosity)


def _read(directory: Path, official: Archive) -> archive.Raw:
    builder = _builder(directory, official)
    records = {}
    for split, files in official.splits.items():
        num_images, num_labels = sum(files.values()), len(official.labels)
        records[split] = np.zeros((num_images, official.record_size), np.uint8)
        is_present = np.zeros(num_images, bool)
        for example in _examples(builder, split):
            i = int(example["id"].removeprefix(f"{split}_".encode()))
            if not 0 <= i < num_images:
                raise UserError(f"{split} has more than {num_images:,} images")
            try:
                image = _pixels(example["image"])
            except UserError as e:
                raise UserError(f"image {i} of {split} {e}") from e
            for column, (label, (_, num_classes)) in enumerate(official.labels.items()):
                if not 0 <= example[label] < num_classes:
                    raise UserError(
                        f"image {i} of {split} has a {label} of {example[label]}, but there are "
                        f"only {num_classes} classes"
                    )
                records[split][i, column] = example[label]
            records[split][i, num_labels:] = image.transpose(2, 0, 1).reshape(-1)
            is_present[i] = True
        if (num_missing := np.count_nonzero(~is_present)) > 0:
            raise UserError(f"{num_missing:,} of {num_images:,} {split} images are missing")
    names = {label: builder.info.features[label].names for label in official.labels}
    return archive.from_records(official, records, names)


def _builder(directory: Path, official: Archive):
    """Returns the `tfds.core.DatasetBuilder` of a directory, whose metadata is verified."""
    for path in directory.iterdir():
        if not (path.is_file() or path.is_dir()):  # reading a pipe might never end
            raise UserError(f"{path.name} is not a file")
    content = (directory / "features.json").read_text(encoding="utf-8")
    json.loads(content, object_pairs_hook=_check_class_name)

    import tensorflow_datasets as tfds  # takes about a second, which the cache avoids

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # hides advice to install TensorFlow
            builder = tfds.builder_from_directory(directory)
        features = {key: (f.shape, f.np_dtype) for key, f in builder.info.features.items()}
        files = {name: split.filepaths for name, split in builder.info.splits.items()}
    except _INVALID_METADATA as e:
        raise UserError(f"{' or '.join(_REQUIRED)} is not valid: {type(e).__name__}: {e}") from e
    expected = {"id": ((), object), "image": ((32, 32, 3), np.uint8)}
    expected |= {label: ((), np.int64) for label in official.labels}
    if features != expected:
        raise UserError(f"features.json has {features} instead of {expected}")
    if getattr(builder.info.file_format, "value", None) not in ("array_record", "tfrecord"):
        raise UserError("the file format is neither ArrayRecord nor TFRecord")
    if not set(official.splits) <= set(files):
        raise UserError("dataset_info.json lacks a training or a test split")
    return builder


def _check_class_name(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses classes other than TFDS features, because TFDS would import any module named here."""
    for key, value in pairs:
        # In files of older versions of TFDS, the key is "type".
        if key in ("pythonClassName", "python_class_name", "type") and not str(value).startswith(
            "tensorflow_datasets.core.features."
        ):
            raise UserError(f"features.json names {value}, which is not a feature of TFDS")
    return dict(pairs)


def _examples(builder, split: str) -> Iterator[dict]:
    """Yields the examples of one split of `builder`, a `tfds.core.DatasetBuilder`.

    The images are still encoded.
    """
    from tensorflow_datasets import decode

    encoded = {"image": decode.SkipDecoding()}
    if builder.info.file_format.value == "tfrecord":  # the default of TFDS with TensorFlow
        for path in builder.info.splits[split].filepaths:
            for record in tfrecord.read(path):
                yield builder.info.features.deserialize_example_np(record, decoders=encoded)
        return
    source = builder.as_data_source(split, decoders=encoded)
    for start in range(0, len(source), 500):  # reading one at a time takes twice as long
        yield from source.__getitems__(range(start, min(start + 500, len(source))))


def _pixels(encoded: bytes) -> np.ndarray:
    """Decodes an image to uint8 [32, 32, 3].

    TFDS would try every format that Pillow knows, some of which start programs, such as Ghostscript
    for EPS. TFDS writes PNG, or JPEG if a data set was prepared with that encoding.

    Raises:
      UserError: If it is corrupt, or has a different format or shape.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")) as image:
            # Checked before decoding, because a huge image would fill the memory.
            if image.size != (32, 32) or image.mode != "RGB":
                raise UserError(
                    f"must have mode RGB and 32x32 pixels, got {image.mode} and "
                    f"{image.width}x{image.height}"
                )
            return np.asarray(image)
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError("is neither PNG nor JPEG") from None
    except Exception as e:  # for corrupt images, Pillow's decoders raise errors of any type
        raise UserError(f"cannot be read: {e}") from e


def _corrupt(directory: Path, reason: str) -> UserError:
    name, data_dir = directory.parent.name, directory.parent.parent
    reason = " ".join(reason.split())  # some libraries quote whole files, in many lines
    shown = reason if len(reason) <= 300 else f"{reason[:300]}..."
    return UserError(
        f"{directory} is incomplete or corrupt ({shown}). Rebuild it with "
        f"`python -m cifar_jax.prepare {name} --data_dir {shlex.quote(str(data_dir))} --overwrite`"
    )
