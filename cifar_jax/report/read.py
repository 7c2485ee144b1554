"""Reads the workdir of a complete, running or interrupted run."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cifar_jax.config import flatten
from cifar_jax.errors import UserError
from cifar_jax.run import predictions
from cifar_jax.run import summary as summaries
from cifar_jax.run.predictions import Predictions
from cifar_jax.run.workdir import check_format, is_at_work
from cifar_jax.selection import curve_split

# Required fields of config.json and summary.json.
_CONFIG = (
    *("experiment", "seed", "num_epochs", "model.name", "data.name", "data.label"),
    "data.val_fraction",
)
_SUMMARY = (
    *("test_accuracy", "test_loss", "top5_accuracy", "best_epoch", "epochs", "selected_on"),
    *("num_params", "model", "step_time_ms", "train_seconds", "compile_seconds", "device"),
    *("versions", "git_commit"),
)


class Run(NamedTuple):
    """The content of a workdir.

    Attributes:
      folder: The workdir.
      config: The flattened config, {"optim.name": "adam", ...}.
      rows: Rows of metrics.csv, with numbers parsed and missing values as None.
      summary: The contents of summary.json if the run is complete, otherwise None.
      predictions: The predictions if the run is complete, otherwise None.
    """

    folder: Path
    config: dict[str, Any]
    rows: list[dict[str, Any]]
    summary: dict[str, Any] | None
    predictions: Predictions | None

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
    config = flatten(read_config(folder))
    summary = _json(folder / "summary.json")  # read first: if it exists, the rows are complete
    if summary is not None:
        _check(folder / "summary.json", summary, _SUMMARY)
        if faults := summaries.faults(summary):
            raise UserError(f"{folder / 'summary.json'} is damaged: {', '.join(faults[:3])}")
    path = folder / "metrics.csv"
    rows = _rows(path) if path.exists() else []
    path = folder / "predictions.npz"
    found = predictions.read(path) if summary is not None and path.exists() else None
    return Run(folder, config, rows, summary, found)


def read_config(folder: Path) -> dict[str, Any]:
    """Returns a run's nested config; raises UserError like `read`."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder")
    check_format(folder)
    config = _json(folder / "config.json")
    if config is None:
        inside = sorted(path.parent for path in folder.glob("*/config.json"))
        hint = f"; did you mean {inside[0]}?" if inside else ""
        raise UserError(f"{folder} holds no run: it has no config.json{hint}")
    _check(folder / "config.json", flatten(config), _CONFIG)
    return config


def _check(path: Path, values: dict[str, Any], fields: Sequence[str]) -> None:
    missing = [field for field in fields if field not in values]
    if missing:
        raise UserError(f"{path} is not from a cifar_jax run: it lacks {', '.join(missing)}")


def _json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:  # just deleted by a run that continues with more epochs
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object")
    return value


def _rows(path: Path) -> list[dict[str, Any]]:
    """Returns the complete rows; a run that is still training may be writing the last one."""
    rows = []
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                _check(path, row, ("epoch", "step"))
                try:
                    rows.append({name: _value(name, text) for name, text in row.items()})
                except (AttributeError, TypeError, ValueError):
                    break
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return rows


def _value(name: str, text: str) -> float | str | None:
    if name == "events":
        return text or ""
    if text == "":
        return None
    value = float(text)
    if not math.isfinite(value):
        return None
    return int(value) if name in ("epoch", "step") else value
