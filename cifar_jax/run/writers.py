"""Writes a run's metrics to CSV (the record), TensorBoard (a view of it) and the terminal."""

import contextlib
import csv
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

Row = dict[str, float | int | str | None]


class Writer(Protocol):
    """Receives events from the training loop; the methods of this class ignore them."""

    def progress(self, epoch: int, step: int, values: Row, images_per_second: float) -> None:
        """Reports progress within an epoch.

        Args:
          epoch: The epoch, counted from 1.
          step: Steps of the epoch taken so far.
          values: Metrics of the epoch so far: "loss", "accuracy" and so on.
          images_per_second: Throughput.
        """

    def epoch(self, row: Row) -> None:
        """Reports the end of an epoch with its row of metrics.csv."""

    def close(self) -> None:
        """Flushes and closes the output; no events follow."""


class CsvWriter(Writer):
    """Appends a row per epoch to a CSV file, and flushes each to disk before returning."""

    def __init__(self, path: Path, rows: list[Row]):
        """Rewrites the file with the rows of the epochs that a resumed run has completed."""
        self._file = path.open("w", newline="")
        self._writer = None
        for row in rows:
            self.epoch(row)

    def epoch(self, row: Row) -> None:
        """Writes one row; the keys of the first one become the header."""
        if self._writer is None:
            self._writer = csv.DictWriter(self._file, list(row), lineterminator="\n")
            self._writer.writeheader()
        self._writer.writerow(row)
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class TensorBoardWriter(Writer):
    """Writes scalars by step, with train, val and test as separate runs that share charts."""

    def __init__(self, directory: Path, rows: list[Row]):
        """Rewrites the files with the rows of the epochs that a resumed run has completed.

        Existing files may lack rows that were not flushed, or hold rows after the checkpoint.
        """
        shutil.rmtree(directory, ignore_errors=True)
        self._directory = directory
        self._runs = {}
        for row in rows:
            self.epoch(row)

    def _run(self, name: str):
        if name not in self._runs:
            from tensorboardX import SummaryWriter

            self._runs[name] = SummaryWriter(str(self._directory / name), flush_secs=30)
        return self._runs[name]

    def epoch(self, row: Row) -> None:
        """Writes train_loss as `loss` of the run `train`, and so on."""
        for name, value in row.items():
            run, _, tag = name.partition("_")
            if run not in ("train", "val", "test"):
                run, tag = "train", name
            if name == "events" and value:
                self._run("train").add_text("events", value, row["step"])
            elif value is not None and name not in ("epoch", "step", "events"):
                self._run(run).add_scalar(tag, value, row["step"])

    def close(self) -> None:
        """Flushes and closes the files."""
        for run in self._runs.values():
            run.close()


class ConsoleWriter(Writer):
    """Shows a progress bar in a terminal, and prints plain lines if the output is piped.

    If the terminal or the process that reads the output is gone, the output is dropped, so that the
    run can still save its state.
    """

    def __init__(self, num_epochs: int, steps_per_epoch: int):
        self._num_epochs = num_epochs
        self._steps_per_epoch = steps_per_epoch
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._bar = None
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task(
                "compiling", total=num_epochs * steps_per_epoch, text=""
            )
            self._bar.start()
        self._last_line = time.monotonic()

    def progress(self, epoch: int, step: int, values: Row, images_per_second: float) -> None:
        """Updates the bar or, without a bar, prints a line if none was printed for 30 seconds."""
        text = (
            f"loss {values['loss']:.4f}  acc {100 * values['accuracy']:5.2f}%  "
            f"{images_per_second:,.0f} img/s"
        )
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.update(
                    self._task,
                    description=f"epoch {epoch}/{self._num_epochs}",
                    completed=(epoch - 1) * self._steps_per_epoch + step,
                    text=text,
                )
        elif time.monotonic() - self._last_line > 30:
            self._print(f"  epoch {epoch} step {step}/{self._steps_per_epoch}  {text}")

    def epoch(self, row: Row) -> None:
        """Prints a line for the epoch, shortened if the terminal is narrow."""
        parts = [f"epoch {row['epoch']:>{len(str(self._num_epochs))}}/{self._num_epochs}"]
        for run in ("train", "val", "test"):
            if row.get(f"{run}_loss") is not None:
                parts.append(
                    f"{run} loss {row[f'{run}_loss']:.4f} acc {100 * row[f'{run}_accuracy']:5.2f}%"
                )
        parts.append(f"lr {row['learning_rate']:.2e}")
        parts.append(f"{row['seconds']:.1f} s")
        parts.append(f"{row['images_per_second']:,.0f} img/s")
        line = "  ".join(parts)
        if self._bar is not None and len(line) > self._console.width:
            line = line.replace(" loss", "").replace(" acc", "")
        if self._bar is not None and len(line) > self._console.width:
            line = line.removeprefix("epoch ").removesuffix(f"  {parts[-1]}")
        self._print(line)
        if row.get("events"):
            self._print(f"  {row['events']}")

    def _print(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self._console.print(line, markup=False)
            self._console.file.flush()
        self._last_line = time.monotonic()

    def close(self) -> None:
        """Removes the bar."""
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.stop()
