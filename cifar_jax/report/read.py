"""Reads the workdir of a complete, running or interrupted run."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cifar_jax.config import flatten
from cifar_jax.errors import UserError
from cifar_jax.run import config_json, metrics_csv, predictions, rules
from cifar_jax.run.predictions import Predictions
from cifar_jax.run.workdir import is_at_work
from cifar_jax.selection import curve_split


class Run(NamedTuple):
    """The content of a workdir.

    Attributes:
      folder: The workdir.
      config: The flattened config, {"optim.name": "adam", ...}.
      rows: Rows of metrics.csv, with numbers parsed and missing values as None.
      summary: The contents of summary.json if the run is complete, otherwise None.
      predictions: The predictions if the run is complete, otherwise None.
      notes: Remarks about the files for the page to show, in sentences.
    """

    folder: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    summary: dict[str, Any] | None
    predictions: Predictions | None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The experiment and its seed."""
        return f"{self.config['experiment']}, seed {self.config['seed']}"

    @property
    def curve(self) -> str:
        """The split that was evaluated between epochs: "val" or "test"."""
        return curve_split(self.config.get("data.val_fraction"))

    @property
    def is_at_work(self) -> bool | None:
        """See `workdir.is_at_work`."""
        return is_at_work(self.folder)

    @property
    def epochs_done(self) -> int:
        """The number of epochs that have a row."""
        return len(self.rows)

    def series(self, name: str) -> tuple[list[float], list[float]]:
        """Returns the epochs at which a column of metrics.csv has a value, and the values."""
        points = [(row["epoch"], row[name]) for row in self.rows if row.get(name) is not None]
        return [epoch for epoch, _ in points], [value for _, value in points]

    def events(self) -> list[tuple[int, str]]:
        """Returns pairs of epoch and the decision of a callback."""
        return [(int(row["epoch"]), row["events"]) for row in self.rows if row.get("events")]


def read(folder: Path) -> Run:
    """Reads a workdir, or a log copied from one.

    Raises:
      UserError: If the folder holds no run, or its files cannot be read.
    """
    config = flatten(config_json.read(folder))
    # Read before the rows: if there is a summary, all rows have been written.
    summary = config_json.read_object(folder / "summary.json")
    if summary is not None:
        rules.check(folder / "summary.json", summary, rules.SUMMARY)
    path = folder / "metrics.csv"
    rows = _rows(path) if path.exists() else []
    notes = _drop_non_finite(rows)
    path = folder / "predictions.npz"
    predicted = predictions.read(path) if summary is not None and path.exists() else None
    if predicted is not None:
        right = float(np.mean(predicted.predictions == predicted.labels))
        if abs(right - summary["test_accuracy"]) > 0.5 / len(predicted.labels):
            notes.append(
                f"predictions.npz is not from this run: {100 * right:.2f}% of its predictions are "
                f"correct, but the test accuracy is {100 * summary['test_accuracy']:.2f}%."
            )
    return Run(folder, config, rows, summary, predicted, tuple(notes))


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        return metrics_csv.read(path)
    except UserError as error:
        if not (path.parent / "checkpoints").is_dir():  # a log, without checkpoints
            raise
        raise UserError(f"{error}. The command that trains this run rebuilds the file") from error


def _drop_non_finite(rows: list[dict[str, Any]]) -> list[str]:
    """Replaces NaN and infinite values by None, and returns a note about them if there are any."""
    epochs_of: dict[str, list[int]] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                epochs_of.setdefault(name, []).append(row["epoch"])
                row[name] = None
    names = [f"{name} of epoch {', '.join(map(str, epochs))}" for name, epochs in epochs_of.items()]
    return [f"Values left out because they are not finite: {'; '.join(names)}."] if names else []
