"""Experiment trackers, chosen by config.trackers: writers beside those that always write.

The packages are extras: `pip install -r requirements-trackers.txt`.
"""

import contextlib
import importlib.util
import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from cifar_jax.config import flatten
from cifar_jax.errors import UserError, unknown
from cifar_jax.run import atomic
from cifar_jax.run.writers import Row, Writer

# What a log of a run consists of.
FILES = ("config.json", "metrics.csv", "summary.json")


class Tracker(Writer, Protocol):
    """A writer that is told the end as well."""

    def finish(self, summary: dict[str, Any]) -> None:
        """The run is complete, and its files are written."""


class MlflowTracker:
    """MLflow: in $MLFLOW_TRACKING_URI, or files below ./mlruns, which `mlflow ui` shows.

    A folder or a server; for a database MLflow needs its whole package, not mlflow-skinny.
    """

    def __init__(self, folder: Path, config: dict[str, Any], rows: Sequence[Row]):
        """Begins a run, or goes on with the one whose number lies in the workdir.

        Args:
          folder: the workdir.
          config: flat.
          rows: of the epochs that a resumed run has behind it.
        """
        import mlflow

        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"file:{Path('mlruns').resolve()}"
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # MLflow 3 prefers databases
        # By default a server that is not there would be asked for eight minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        self._client, self._folder = mlflow.MlflowClient(tracking_uri=uri), folder
        self._last_step, self._status = -1, "KILLED"
        note = folder / "mlflow_run"
        self._run_id = note.read_text() if rows and note.exists() else ""
        try:
            if self._run_id:
                self._go_on()
        except mlflow.exceptions.MlflowException:  # it is in another store
            self._run_id = ""
        if not self._run_id:
            self._run_id = self._begin(config)
            with atomic.replacing(note) as part:
                part.write_text(self._run_id)
        for row in rows:
            self.epoch(row)

    def _go_on(self) -> None:
        history = self._client.get_metric_history(self._run_id, "train_loss")
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

    def progress(self, epoch: int, step: int, values: Row, images_per_second: float) -> None:
        """Nothing: a point per epoch is enough."""

    def epoch(self, row: Row) -> None:
        """Logs an epoch's numbers at its last step, unless MLflow has them from before."""
        if row["step"] <= self._last_step:
            return
        for name, value in numbers(row).items():
            self._client.log_metric(self._run_id, name, value, step=row["step"])

    def finish(self, summary: dict[str, Any]) -> None:
        """Logs the final numbers and files."""
        for name, value in numbers(summary).items():
            self._client.log_metric(self._run_id, f"final/{name}", value)
        for name in FILES:
            self._client.log_artifact(self._run_id, str(self._folder / name))
        self._status = "FINISHED"

    def close(self) -> None:
        """Ends the run; one that is not complete is killed until it is resumed."""
        self._client.set_terminated(self._run_id, status=self._status)


class WandbTracker:
    """Weights & Biases: offline unless $WANDB_MODE says otherwise; `wandb sync` sends it later."""

    def __init__(self, folder: Path, config: dict[str, Any], rows: Sequence[Row]):
        """Begins a run, or goes on with the workdir's; the arguments are MlflowTracker's.

        Offline, what goes on lies in a folder of its own with the same id, and holds once more the
        rows behind the last checkpoint.
        """
        import wandb

        note = folder / "wandb_run"
        if not (rows and note.exists()):
            with atomic.replacing(note) as part:
                part.write_text(uuid.uuid4().hex[:8])
        self._folder = folder
        self._run = wandb.init(
            project="cifar_jax",
            name=f"{config['experiment']}_{config['seed']}",
            id=note.read_text(),
            resume="allow",
            dir=str(folder),
            config=config,
            mode=os.environ.get("WANDB_MODE", "offline"),
        )

    def progress(self, epoch: int, step: int, values: Row, images_per_second: float) -> None:
        """Nothing: a point per epoch is enough."""

    def epoch(self, row: Row) -> None:
        """Logs an epoch's numbers at its last step."""
        self._run.log(numbers(row), step=row["step"])

    def finish(self, summary: dict[str, Any]) -> None:
        """Notes the final numbers, and saves the files."""
        self._run.summary.update(numbers(summary))
        for name in FILES:
            self._run.save(str(self._folder / name), base_path=str(self._folder), policy="now")

    def close(self) -> None:
        """Writes what is buffered and ends the run."""
        self._run.finish()


TRACKERS = {"mlflow": MlflowTracker, "wandb": WandbTracker}


class Guarded:
    """A tracker whose first trouble is its last word: the training goes on without it."""

    def __init__(self, name: str, make: Callable[[], Tracker]):
        self._name, self._tracker, self._is_told = name, None, True
        self._try(lambda: setattr(self, "_tracker", make()))

    def _try(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except Exception as error:  # a full disk, a server that is gone
            self._is_told = False
            print(f"{self._name} is told no more: {type(error).__name__}: {error}", file=sys.stderr)

    def _tell(self, name: str, *args: Any) -> None:
        if self._is_told:
            self._try(lambda: getattr(self._tracker, name)(*args))

    def progress(self, *args: Any) -> None:
        """As the tracker's."""
        self._tell("progress", *args)

    def epoch(self, row: Row) -> None:
        """As the tracker's."""
        self._tell("epoch", row)

    def finish(self, summary: dict[str, Any]) -> None:
        """As the tracker's."""
        self._tell("finish", summary)

    def close(self) -> None:
        """As the tracker's; one in trouble is asked too, without a word where it cannot."""
        if self._is_told:
            self._tell("close")
        elif self._tracker is not None:
            with contextlib.suppress(Exception):
                self._tracker.close()


@contextlib.contextmanager
def opened(line: str, folder: Path, rows: Sequence[Row]) -> Iterator[list[Tracker]]:
    """Opens the trackers of a line like "mlflow, wandb", and closes them on leaving.

    Args:
      line: of the config.
      folder: the workdir, with its config.json.
      rows: of the epochs that a resumed run has behind it.

    Raises:
      UserError: as `parse`.
    """
    names = parse(line)
    config = flatten(json.loads((folder / "config.json").read_text())) if names else {}
    found = [Guarded(name, partial(TRACKERS[name], folder, config, rows)) for name in names]
    try:
        yield found
    finally:
        for tracker in found:
            tracker.close()


def parse(line: str) -> list[str]:
    """Returns the names of the trackers in a line like "mlflow, wandb"; none of an empty one.

    Raises:
      UserError: for an unknown one, or one whose package is missing.
    """
    names = list(dict.fromkeys(name.strip() for name in line.split(",") if name.strip()))
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"trackers={name} needs its package: pip install -r requirements-trackers.txt"
            )
    return names


def numbers(values: dict[str, Any]) -> dict[str, float]:
    """Returns the entries that are numbers."""
    return {k: float(v) for k, v in values.items() if isinstance(v, int | float)}
