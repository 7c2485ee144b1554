"""Test images, as rows of small pictures: which classes are hard, and what is taken for what."""

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
      uri: a PNG file as the address of an <img>.
      index: in the test set.
      label: name of its class.
      prediction: name of the class that it was taken for.
    """

    uri: str
    index: int
    label: str
    prediction: str


def load(run: Run, data_dir: str | None = None) -> tuple[np.ndarray | None, str]:
    """Returns the test images of a run, [N, 32, 32, 3] uint8, or None and why there are none.

    Args:
      run: whose predictions are for them.
      data_dir: of the data set; by default the run's.
    """
    if run.predictions is None:
        return None, ""
    name, folder = run.config["data.name"], data_dir or run.config.get("data.dir") or None
    try:
        if not data.is_there(name, folder):
            where = f"in {data_dir}" if data_dir else "here; --data_dir says where it is"
            return None, f"No example images: {name} is not {where}."
        dataset = data.load(
            name,
            label=run.config["data.label"],
            data_dir=folder,
            limit=run.config.get("data.limit", 0),
        )
    except UserError as error:
        return None, f"No example images: {error}"
    if not np.array_equal(dataset.test.labels, run.predictions.labels):
        return None, "No example images: the test set found here is not the run's."
    return dataset.test.images, ""


def first(found: Predictions, label: int, count: int = 8) -> np.ndarray:
    """Returns the places of a class's first images, those that were mistaken first."""
    wrong = found.predictions != found.labels
    order = np.argsort(~wrong, kind="stable")
    return order[found.labels[order] == label][:count]


def confused(found: Predictions, pair: Pair, count: int = 8) -> np.ndarray:
    """Returns the places of the first images of one class that were taken for another."""
    is_it = (found.labels == pair.label) & (found.predictions == pair.prediction)
    return np.flatnonzero(is_it)[:count]


def show(images: np.ndarray, found: Predictions, places: np.ndarray) -> list[Example]:
    """Returns images of the test set for the page.

    Args:
      images: [N, H, W, 3] uint8 of the test set.
      found: for the same images.
      places: in the test set.
    """
    return [_example(images, found, i) for i in places]


def _example(images: np.ndarray, found: Predictions, index: int) -> Example:
    file = io.BytesIO()
    Image.fromarray(images[index]).save(file, "PNG")
    names = found.class_names
    label, prediction = names[found.labels[index]], names[found.predictions[index]]
    return Example(data_uri(file.getvalue()), int(index), label, prediction)
