"""Shows how a search advances: a progress bar in a terminal, otherwise a line per trial."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from cifar_jax.study import result
from cifar_jax.study.trial import Outcome


class Progress:
    """The console output of a worker; a context manager that removes the bar at the end."""

    def __init__(self, metric: str):
        """Starts the output.

        Args:
          metric: The value of config.selected_by.
        """
        self._metric = metric
        self._text, self._best = "", ""
        # Keeps the terminal, because trials redirect sys.stdout to their logs while they train.
        self._console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self._bar = None
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("trials"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                console=self._console,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):  # the terminal is gone
                self._bar.stop()

    def update(self, trials: Sequence[FrozenTrial], num_trials: int) -> None:
        """Shows the number of trials that all workers have finished, and the best one so far."""
        best = result.best_of(trials)
        if best is not None:
            shown = result.format_value(best.value, self._metric)
            self._best = f"best {shown} (trial {best.number})"
        finished = sum(t.state.is_finished() for t in trials)
        self._show(completed=finished, total=max(num_trials, finished))

    def begin(self, number: int, num_epochs: int) -> None:
        """Shows that a trial is compiling."""
        self._number, self._num_epochs = number, num_epochs
        self._text = f"trial {number}, compiling"
        self._show()

    def epoch(self, epoch: int, value: float | None) -> None:
        """Shows an epoch of the current trial and the value that it reports, if any."""
        shown = "" if value is None else f" {result.format_value(value, self._metric)}"
        self._text = f"trial {self._number}, epoch {epoch}/{self._num_epochs}{shown}"
        self._show()

    def wait(self) -> None:
        """Shows that the remaining trials are trained by other workers."""
        self._text = "waiting for other workers"
        self._show()

    def lose(self, number: int) -> None:
        """Prints that another worker has taken over a trial."""
        self._print(f"trial {number:<4} continued by another worker")

    def end(self, number: int, values: Mapping[str, Any], outcome: Outcome) -> None:
        """Prints how a trial ended."""
        state = result.state_name(outcome.state, outcome.error)
        shown = ""
        if outcome.state == TrialState.COMPLETE:
            shown = result.format_value(outcome.value, self._metric)
        set_to = "  ".join(f"{name}={result.format_parameter(v)}" for name, v in values.items())
        self._print(f"trial {number:<4} {state:<9} {shown:>8}  {set_to}  {outcome.error}".rstrip())

    def _show(self, **counts: int) -> None:
        if self._bar is not None:
            text = "  ".join(filter(None, (self._best, self._text)))
            with contextlib.suppress(OSError):
                self._bar.update(self._task, description=text, **counts)

    def _print(self, line: str) -> None:
        with contextlib.suppress(OSError):
            self._console.print(line, markup=False)
            self._console.file.flush()
