"""Writes and reads a complete run's predictions.npz."""

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
        with np.load(path, allow_pickle=False) as file:
            names = tuple(str(name) for name in np.atleast_1d(file["class_names"]))
            predictions = Predictions(file["logits"], file["labels"], file["predictions"], names)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except Exception as error:  # for corrupt files, NumPy and zipfile raise errors of many types
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise UserError(f"{path} cannot be read: {reason}") from error
    if wrong := _what_is_wrong(*predictions):
        raise UserError(f"{path} is not from a cifar_jax run: {wrong}")
    return predictions


def _what_is_wrong(
    logits: np.ndarray, labels: np.ndarray, predicted: np.ndarray, class_names: tuple[str, ...]
) -> str:
    """Returns what is wrong with the arrays of predictions.npz, or "" if nothing is.

    Args:
      logits: Should be [N, C] float.
      labels: Should be [N] int, in [0, C).
      predicted: Should be the class of the largest logit, [N] int.
      class_names: Should be C names.
    """
    if logits.ndim != 2 or not len(logits) or logits.dtype.kind != "f":
        return f"logits must be a table of numbers, got {logits.dtype} {list(logits.shape)}"
    if len(class_names) != logits.shape[1]:
        return f"logits have {logits.shape[1]} classes, but class_names has {len(class_names)}"
    for name, array in (("labels", labels), ("predictions", predicted)):
        if array.shape != logits.shape[:1] or array.dtype.kind not in "iu":
            got = f"{array.dtype} {list(array.shape)}"
            return (
                f"{name} must be {len(logits)} whole numbers, one for each row of logits, got {got}"
            )
        if array.min() < 0 or array.max() >= len(class_names):
            return f"{name} must be from 0 to {len(class_names) - 1}"
    if not np.isfinite(logits).all():
        return "logits must be finite numbers"
    if not np.array_equal(predicted, logits.argmax(axis=1)):
        return "predictions must be the classes with the largest logits"
    return ""
