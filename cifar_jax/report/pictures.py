"""Writes the report's figures and numbers to the workdir and to TensorBoard."""

import csv
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cifar_jax.data.superclasses import SUPERCLASSES, superclass_of
from cifar_jax.report import analysis, examples, figures, network
from cifar_jax.report.page import words
from cifar_jax.report.read import Run, read
from cifar_jax.run import atomic
from cifar_jax.selection import METRICS

NUMBERS = "errors.json"


def write(folder: Path, images: np.ndarray | None = None) -> Path:
    """Draws the figures of a complete run.

    Writes to plots/ in the workdir: curves, confusion matrices and errors as PNG files, the latter
    two also as CSV files, and all numbers as errors.json. TensorBoard receives figures of the
    errors, the first misclassified images, and the config as hyperparameters.

    Args:
      folder: The workdir.
      images: [N, 32, 32, 3] uint8, the test images from which examples are chosen; None omits the
        examples.

    Returns:
      The folder of the figures.
    """
    run = read(folder)
    plots = folder / "plots"
    plots.mkdir(exist_ok=True)
    # This file is written last: its presence shows that all figures are complete.
    (plots / NUMBERS).unlink(missing_ok=True)
    by = {} if run.predictions is None else matrices(run)
    layers = network.of_run(run)
    drawn = {name: figures.png(figure) for name, figure in _figures(run, by, layers, images)}
    for name, data in drawn.items():
        _write(plots / f"{name}.png", data)
    for kind, (matrix, names) in by.items():
        _write(plots / f"confusion_{kind}.csv", confusion_csv(matrix, names))
        rates = analysis.error_rates(matrix)
        table = [[names[i], rates[i], int(matrix[i].sum())] for i in analysis.from_worst(rates)]
        _write(plots / f"errors_{kind}.csv", as_csv(["class", "error", "images"], table))
    if layers:
        table = [[x.path, x.kind, "x".join(map(str, x.shape)), x.num_params] for x in layers]
        _write(plots / "layers.csv", as_csv(["layer", "kind", "output", "parameters"], table))
    write_tensorboard(run, drawn, images)
    _write(plots / NUMBERS, json.dumps(numbers(run, by), indent=2).encode() + b"\n")
    return plots


def matrices(run: Run) -> dict[str, tuple[np.ndarray, Sequence[str]]]:
    """Returns {kind: (confusion matrix, names)} by class and, if they exist, by superclass."""
    predictions = run.predictions
    names = predictions.class_names
    matrix = analysis.confusion(predictions.labels, predictions.predictions, len(names))
    by = {"class": (matrix, names)}
    groups = superclass_of(names)
    if groups:
        known = list(SUPERCLASSES)
        merged = analysis.by_group(matrix, [known.index(g) for g in groups], len(known))
        by["superclass"] = (merged, known)
    return by


def numbers(run: Run, by: dict[str, tuple[np.ndarray, Sequence[str]]]) -> dict[str, Any]:
    """Returns the numbers of the error figures as JSON values; `by` is from `matrices`."""
    if run.predictions is None:
        return {}
    predictions, names = run.predictions, run.predictions.class_names
    calibrated = analysis.calibration(predictions.logits, predictions.labels)
    result: dict[str, Any] = {}
    for kind, (matrix, labels) in by.items():
        rates = (None if np.isnan(rate) else float(rate) for rate in analysis.error_rates(matrix))
        result[f"error_by_{kind}"] = dict(zip(labels, rates, strict=True))
    result["most_confused"] = [
        {"class": names[p.label], "taken_for": names[p.prediction], "images": p.count}
        for p in analysis.most_confused(by["class"][0], 20)
    ]
    result["expected_calibration_error"] = calibrated.error
    full = calibrated.counts > 0
    result["calibration"] = [
        {"confidence": float(c), "accuracy": float(a), "images": int(n)}
        for c, a, n in zip(
            calibrated.confidence[full], calibrated.accuracy[full], calibrated.counts[full]
        )
    ]
    return result


def _figures(run: Run, by, layers, images: np.ndarray | None) -> Iterator[tuple]:
    """Yields pairs of name and figure."""
    if layers:
        yield "network", network.diagram(layers)
    if run.rows:
        for name in METRICS:
            yield name, figures.metric(run, name)
        yield "learning_rate", figures.learning_rate(run)
    for kind, (matrix, names) in by.items():
        ordered, labels, groups = in_order(matrix, names)
        for suffix, gray in (("", False), ("_grey", True)):
            picture = figures.confusion(ordered, labels, groups=groups, gray=gray)
            yield f"confusion_{kind}{suffix}", picture
        yield f"errors_{kind}", figures.error_bars(matrix, names)
    if run.predictions is None:
        return
    predictions = run.predictions
    calibrated = analysis.calibration(predictions.logits, predictions.labels)
    yield "calibration", figures.reliability(calibrated)
    if images is None:
        return
    names, (matrix, _) = predictions.class_names, by["class"]
    rates = analysis.error_rates(matrix)
    order = analysis.from_worst(rates)
    for name, chosen in (("hardest", order[:10]), ("easiest", order[::-1][:10])):
        rows = [
            (
                f"{words(names[c])}: {100 * rates[c]:.1f}% error",
                images[examples.first(predictions, c)],
            )
            for c in chosen
        ]
        yield name, figures.gallery(rows)
    pairs = analysis.most_confused(matrix, 10)
    if pairs:
        rows = [
            (
                f"{words(names[p.label])} predicted as {words(names[p.prediction])}: {p.count}",
                images[examples.confused(predictions, p)],
            )
            for p in pairs
        ]
        yield "confused", figures.gallery(rows)


def in_order(matrix: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str], list[str]]:
    """Returns matrix, names and superclasses, with the classes of a superclass adjacent.

    Without superclasses, the order is kept, and the last list is empty.
    """
    groups = superclass_of(tuple(names))
    if not groups:
        return matrix, list(names), []
    known = list(SUPERCLASSES)
    order = sorted(range(len(names)), key=lambda i: (known.index(groups[i]), names[i]))
    return matrix[np.ix_(order, order)], [names[i] for i in order], [groups[i] for i in order]


def write_tensorboard(run: Run, pictures: dict[str, bytes], images: np.ndarray | None) -> None:
    """Writes figures, misclassified images and hyperparameters to a run's TensorBoard folder."""
    from tensorboardX import SummaryWriter

    target = run.folder / "tensorboard" / "report"
    shutil.rmtree(target, ignore_errors=True)
    with SummaryWriter(str(target)) as writer:
        step = run.rows[-1]["step"] if run.rows else 0
        for name, data in pictures.items():
            if name.startswith(("confusion", "errors", "calibration")):
                picture = np.asarray(Image.open(io.BytesIO(data), formats=["PNG"]).convert("RGB"))
                writer.add_image(name, picture, step, dataformats="HWC")
        predictions = run.predictions
        if images is not None and predictions is not None:
            wrong = np.flatnonzero(predictions.predictions != predictions.labels)[:64]
            if len(wrong):
                writer.add_images("misclassified", images[wrong], step, dataformats="NHWC")
        if run.summary is not None:
            plain = {k: v if isinstance(v, bool | int | float) else str(v)
                     for k, v in run.config.items()}  # fmt: skip
            scores = {
                f"hparam/{name}": run.summary[name] for name in ("test_accuracy", "test_loss")
            }
            writer.add_hparams(plain, scores, name="hparams", global_step=step)


def _write(path: Path, data: bytes) -> None:
    with atomic.replacing(path) as part:
        part.write_bytes(data)


def confusion_csv(matrix: np.ndarray, names: Sequence[str]) -> bytes:
    """Returns a confusion matrix as a CSV file with a row per true class."""
    table = [[name, *row] for name, row in zip(names, matrix.tolist(), strict=True)]
    return as_csv(["true class", *names], table)


def as_csv(titles: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """Returns a CSV file as bytes."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows(rows)
    return file.getvalue().encode()
