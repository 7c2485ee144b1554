"""Writes and reads a complete run's predictions.npz."""

import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cifar_jax.errors import UserError
from cifar_jax.run import atomic


class Predictions(NamedTuple):
    """Predictions for the test images, in the test set's order.

    Attributes:
      logits: [N, C] float32.
      labels: [N] int32.
      predictions: [N] int32.
      class_names: The names of the C classes.
    """

    logits: np.ndarray
    labels: np.ndarray
    predictions: np.ndarray
    class_names: tuple[str, ...]


def write(path: Path, logits: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> None:
    """Writes predictions.npz; see Predictions for the arguments."""
    with atomic.replacing(path) as part, part.open("wb") as file:
        np.savez_compressed(
            file,
            logits=logits,
            labels=labels,
            predictions=logits.argmax(axis=-1).astype(np.int32),
            class_names=np.array(class_names),
        )


def read(path: Path) -> Predictions:
    """Reads predictions.npz.

    Raises:
      UserError: If it is missing or corrupt, or holds arrays of other shapes, types or ranges.
    """
    try:
        with np.load(path) as file:
            names = tuple(str(name) for name in np.atleast_1d(file["class_names"]))
            found = Predictions(file["logits"], file["labels"], file["predictions"], names)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (
        *(OSError, EOFError, KeyError, ValueError, TypeError, AttributeError, NotImplementedError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:  # NumPy raises an AttributeError for a file that holds one array
        raise UserError(f"{path} cannot be read: {str(error)[:200]}") from error
    _check(path, found)
    return found


def _check(path: Path, found: Predictions) -> None:
    shape = found.logits.shape
    if len(shape) != 2 or not shape[0] or shape[1] != len(found.class_names):
        raise UserError(
            f"{path}: logits of shape {shape} do not fit {len(found.class_names)} classes"
        )
    if found.logits.dtype.kind != "f" or not np.isfinite(found.logits).all():
        raise UserError(f"{path}: logits need finite floating-point values")
    for name in ("labels", "predictions"):
        values = getattr(found, name)
        if values.shape != shape[:1] or values.dtype.kind not in "iu":
            raise UserError(f"{path}: {name} need {shape[0]} integers")
        if values.min() < 0 or values.max() >= shape[1]:
            raise UserError(f"{path}: {name} need values from 0 to {shape[1] - 1}")
