"""Loads test images, and selects examples of classes and of confused pairs of classes."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from cifar_jax import data
from cifar_jax.errors import UserError
from cifar_jax.report.analysis import Pair
from cifar_jax.report.figures import data_uri
from cifar_jax.report.read import Predictions, Run


class Example(NamedTuple):
    """One test image.

    Attributes:
      uri: Data URI of a PNG file.
      index: Index in the test set.
      label: Name of its class.
      prediction: Name of the predicted class.
    """

    uri: str
    index: int
    label: str
    prediction: str


def load(run: Run, data_dir: str | None = None) -> tuple[np.ndarray | None, str]:
    """Returns a run's test images, or None and a note that says why there are none.

    Args:
      run: The run; its predictions must be for these images.
      data_dir: Folder of the data set; by default the run's.

    Returns:
      Images [N, 32, 32, 3] uint8 and "", or None and the note.
    """
    if run.predictions is None:
        return None, ""
    name, folder = run.config["data.name"], data_dir or run.config.get("data.dir") or None
    try:
        if not data.is_there(name, folder):
            where = f" in {data_dir}" if data_dir else "; set its folder with --data_dir"
            return None, f"No example images: {name} was not found{where}."
        dataset = data.load(
            name,
            label=run.config["data.label"],
            data_dir=folder,
            limit=run.config.get("data.limit", 0),
        )
    except UserError as error:
        return None, f"No example images: {error}"
    if not np.array_equal(dataset.test.labels, run.predictions.labels):
        return None, "No example images: the test set differs from the run's."
    return dataset.test.images, ""


def first(predictions: Predictions, label: int, count: int = 8) -> np.ndarray:
    """Returns the indices of up to `count` images of a class, misclassified ones first."""
    wrong = predictions.predictions != predictions.labels
    order = np.argsort(~wrong, kind="stable")
    return order[predictions.labels[order] == label][:count]


def confused(predictions: Predictions, pair: Pair, count: int = 8) -> np.ndarray:
    """Returns the indices of the first images of one class that were predicted as another."""
    is_pair = (predictions.labels == pair.label) & (predictions.predictions == pair.prediction)
    return np.flatnonzero(is_pair)[:count]


def show(images: np.ndarray, predictions: Predictions, indices: np.ndarray) -> list[Example]:
    """Returns examples from the test set for the page.

    Args:
      images: [N, H, W, 3] uint8, the test set.
      predictions: Predictions for the same images.
      indices: Indices in the test set.
    """
    return [_example(images, predictions, i) for i in indices]


def _example(images: np.ndarray, predictions: Predictions, index: int) -> Example:
    file = io.BytesIO()
    Image.fromarray(images[index]).save(file, "PNG")
    names = predictions.class_names
    label, prediction = names[predictions.labels[index]], names[predictions.predictions[index]]
    return Example(data_uri(file.getvalue()), int(index), label, prediction)
