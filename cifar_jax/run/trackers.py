"""Experiment trackers: optional writers, selected by config.trackers.

Their packages are optional: `pip install -r requirements-trackers.txt`.
"""

import contextlib
import importlib.util
import json
import os
import sys
import traceback
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from cifar_jax.config import flatten
from cifar_jax.errors import UserError, unknown
from cifar_jax.run import atomic
from cifar_jax.run.writers import Row, Writer

# The files that make up the log of a run.
FILES = ("config.json", "metrics.csv", "summary.json")


class Tracker(Writer, Protocol):
    """A writer that is also notified at the end of the run."""

    def finish(self, summary: dict[str, Any]) -> None:
        """Reports that the run is complete and its files are written."""


class MlflowTracker(Tracker):
    """Logs to MLflow: to $MLFLOW_TRACKING_URI or, by default, to ./mlruns, shown by `mlflow ui`.

    The URI may be a folder or a server; a database needs the full mlflow package, not
    mlflow-skinny.
    """

    def __init__(self, folder: Path, config: dict[str, Any], rows: Sequence[Row]):
        """Begins a run, or continues the one whose ID is stored in the workdir.

        Args:
          folder: The workdir.
          config: The flattened config.
          rows: The rows of the epochs that a resumed run has completed.
        """
        import mlflow

        uri = os.environ.get("MLFLOW_TRACKING_URI") or Path("mlruns").resolve().as_uri()
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 prefers databases
        # By default MLflow retries an unreachable server for eight minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self._client, self._folder = mlflow.MlflowClient(tracking_uri=uri), folder
        self._last_step, self._status = -1, "KILLED"
        note = folder / "mlflow_run"
        self._run_id = note.read_text() if rows and note.exists() else ""
        try:
            if self._run_id:
                self._resume()
        except mlflow.exceptions.MlflowException:  # the run is in another store
            self._run_id = ""
        if not self._run_id:
            self._run_id = self._begin(config)
            with atomic.replacing(note) as part:
                part.write_text(self._run_id)
        for row in rows:
            self.epoch(row)

    def _resume(self) -> None:
        # A row is complete once its last metric has been logged.
        history = self._client.get_metric_history(self._run_id, "images_per_second")
        self._last_step = max((metric.step for metric in history), default=-1)
        self._client.update_run(self._run_id, status="RUNNING")

    def _begin(self, config: dict[str, Any]) -> str:
        name = "cifar_jax"
        experiment = self._client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self._client.create_experiment(name)
        run = self._client.create_run(number, run_name=f"{config['experiment']}_{config['seed']}")
        for field, value in config.items():
            self._client.log_param(run.info.run_id, field, value)
        return run.info.run_id

    def epoch(self, row: Row) -> None:
        """Logs an epoch's metrics at its last step, unless MLflow already has them."""
        if row["step"] <= self._last_step:
            return
        for name, value in numbers(row).items():
            self._client.log_metric(self._run_id, name, value, step=row["step"])

    def finish(self, summary: dict[str, Any]) -> None:
        """Logs the final metrics and the files."""
        for name, value in numbers(summary).items():
            self._client.log_metric(self._run_id, f"final/{name}", value)
        for name in FILES:
            self._client.log_artifact(self._run_id, str(self._folder / name))
        self._status = "FINISHED"

    def close(self) -> None:
        """Ends the run; an incomplete one has the status KILLED until it is resumed."""
        self._client.set_terminated(self._run_id, status=self._status)


class WandbTracker(Tracker):
    """Logs to Weights & Biases: offline unless $WANDB_MODE is set; `wandb sync` uploads later."""

    def __init__(self, folder: Path, config: dict[str, Any], rows: Sequence[Row]):
        """Begins a run, or continues the workdir's; see MlflowTracker for the arguments.

        Offline, a resumed run is written to a new folder with the same ID, and repeats the rows
        logged after the last checkpoint.
        """
        import wandb

        note = folder / "wandb_run"
        is_new = not (rows and note.exists())
        run_id = uuid.uuid4().hex[:8] if is_new else note.read_text()
        self._folder = folder
        self._run = wandb.init(
            project="cifar_jax",
            name=f"{config['experiment']}_{config['seed']}",
            id=run_id,
            resume="allow",
            dir=str(folder),
            config=config,
            mode=os.environ.get("WANDB_MODE", "offline"),
        )
        if is_new:  # the tracker was added when the run was resumed
            for row in rows:
                self.epoch(row)
            with atomic.replacing(note) as part:
                part.write_text(run_id)

    def epoch(self, row: Row) -> None:
        """Logs an epoch's metrics at its last step."""
        self._run.log(numbers(row), step=row["step"])

    def finish(self, summary: dict[str, Any]) -> None:
        """Stores the final metrics in the run's summary, and saves the files."""
        self._run.summary.update(numbers(summary))
        for name in FILES:
            self._run.save(str(self._folder / name), base_path=str(self._folder), policy="now")

    def close(self) -> None:
        """Flushes buffered data and ends the run."""
        self._run.finish()


TRACKERS = {"mlflow": MlflowTracker, "wandb": WandbTracker}


class FailSafeTracker:
    """A tracker that is disabled after its first exception; training continues without it."""

    def __init__(self, name: str, make: Callable[[], Tracker]):
        self._name, self._tracker, self._is_enabled = name, None, True
        self._try(lambda: setattr(self, "_tracker", make()))

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:
            self._is_enabled = False
            # An OSError, or an exception of the tracker's package such as MlflowException, is
            # expected if the disk is full or a server is unreachable. Any other one is a bug.
            is_expected = type(error).__module__.startswith(self._name)
            if not (is_expected or isinstance(error, OSError)):
                traceback.print_exc()
            print(f"{self._name} disabled: {type(error).__name__}: {error}", file=sys.stderr)

    def _call(self, name: str, *args: Any) -> None:
        if self._is_enabled:
            self._try(lambda: getattr(self._tracker, name)(*args))

    def progress(self, *args: Any) -> None:
        """See Tracker."""
        self._call("progress", *args)

    def epoch(self, row: Row) -> None:
        """See Tracker."""
        self._call("epoch", row)

    def finish(self, summary: dict[str, Any]) -> None:
        """See Tracker."""
        self._call("finish", summary)

    def close(self) -> None:
        """Closes the tracker; a disabled one is closed too, ignoring any exception."""
        if self._is_enabled:
            self._call("close")
        elif self._tracker is not None:
            with contextlib.suppress(Exception):
                self._tracker.close()


@contextlib.contextmanager
def opened(line: str, folder: Path, rows: Sequence[Row]) -> Iterator[list[Tracker]]:
    """Opens the trackers of a line like "mlflow, wandb", and closes them on exit.

    Args:
      line: The config's `trackers`.
      folder: The workdir, with its config.json.
      rows: The rows of the epochs that a resumed run has completed.

    Raises:
      UserError: See `parse`.
    """
    names = parse(line)
    config = flatten(json.loads((folder / "config.json").read_text())) if names else {}
    opened_trackers = [
        FailSafeTracker(name, partial(TRACKERS[name], folder, config, rows)) for name in names
    ]
    try:
        yield opened_trackers
    finally:
        for tracker in opened_trackers:
            tracker.close()


def parse(line: str) -> list[str]:
    """Returns the names of the trackers in a line like "mlflow, wandb", which may be empty.

    Raises:
      UserError: If a name is missing, a tracker is unknown, or its package is not installed.
    """
    names = list(dict.fromkeys(map(str.strip, line.split(",")))) if line.strip() else []
    if "" in names:
        raise UserError(f"trackers must be names separated by commas, got {line!r}")
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"trackers={name} needs its package: pip install -r requirements-trackers.txt"
            )
    return names


def numbers(values: dict[str, Any]) -> dict[str, float]:
    """Returns the numeric entries as floats."""
    return {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
