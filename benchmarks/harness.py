"""Code that benchmark commands share: interleaved timing, JSON lines and the handling of errors.

Nothing here imports JAX when the module is loaded, so that `benchmarks.epoch` can start processes
that never load it.
"""

import argparse
import gc
import importlib.util
import json
import math
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO, TypeVar

from cifar_jax.errors import UserError, quote, shorten

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

# The message on Ctrl-C: a record is written as soon as its measurement is complete.
STOPPED = b"stopped; completed measurements have been recorded\n"
# The form of a case on the command line.
CASE = "MODEL[:BATCH[:DTYPE]]"
# The data sets have 50,000 training images.
MAX_BATCH_SIZE = 50_000
# If other processes take more than this share of the cores' time, times mean little.
MAX_BACKGROUND_LOAD = 0.05

Record = dict[str, Any]
# A function that runs the given number of steps and waits until they have finished.
TimedLoop = Callable[[int], None]
_T = TypeVar("_T")

# Shorter rounds would mainly measure the overhead of a call. On an H100, a call takes 2.5 ms
# (resnet18) or 0.9 ms (cnn3) longer than its steps
# (benchmarks/results/checks/gpu/first_contact.jsonl).
_MIN_ROUND_SECONDS = 0.2
_MIN_ROUNDS, _MAX_ROUNDS = 3, 100


def timed(run: TimedLoop, num_steps: int) -> float:
    """Returns the seconds that `run` takes for `num_steps` steps."""
    start = time.perf_counter()
    run(num_steps)
    return time.perf_counter() - start


def seconds_per_step(run: TimedLoop, num_steps: int, num_warm_up: int = 0) -> float:
    """Returns the seconds per step over `num_steps` steps, after `num_warm_up` untimed ones."""
    if num_warm_up:
        run(num_warm_up)
    return timed(run, num_steps) / num_steps


def calibrate(run: TimedLoop, seconds: float) -> int:
    """Returns the number of steps, at least one, that take about `seconds` seconds."""
    num_steps = 1
    while (elapsed := timed(run, num_steps)) < seconds / 4:
        num_steps *= 2
    return max(1, round(num_steps * seconds / elapsed))


def plan_rounds(run: TimedLoop, seconds: float) -> tuple[int, int]:
    """Chooses the number of rounds, and of steps per round, that fill a time budget.

    Args:
      run: A loop that has already run once.
      seconds: The approximate total time of the rounds. The minimum of _MIN_ROUNDS rounds takes
        precedence over it.

    Returns:
      The number of rounds and the number of steps per round.
    """
    num_steps = calibrate(run, max(seconds / _MAX_ROUNDS, _MIN_ROUND_SECONDS))
    first = timed(run, num_steps)
    return min(max(round(seconds / first), _MIN_ROUNDS), _MAX_ROUNDS), num_steps


def interleave(
    turns: Mapping[str, Callable[[], _T]],
    num_rounds: int,
    on_result: Callable[[int, str, _T], None] = lambda *_: None,
) -> dict[str, list[_T]]:
    """Runs each contender once per round, in order, so that disturbances affect all contenders.

    Args:
      turns: Maps the name of a contender to the function that takes one measurement of it.
      num_rounds: The number of rounds.
      on_result: Called with the round, the contender's name and the result of every turn.

    Returns:
      The results of each contender, one per round.
    """
    results = {name: [] for name in turns}
    for i in range(num_rounds):
        for name, turn in turns.items():
            results[name].append(turn())
            on_result(i, name, results[name][-1])
    return results


def compare(times: Mapping[str, Sequence[float]], ours: str) -> tuple[dict[str, float], str]:
    """Returns the median time of each contender, and the fastest one other than `ours`."""
    medians = {name: statistics.median(values) for name, values in times.items()}
    return medians, min((name for name in medians if name != ours), key=medians.__getitem__)


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, float]:
    """Returns the median, min and max of the ratios taken within each round."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}


def check_loss(loss: float) -> None:
    """Checks that a loss is finite; steps with NaN or infinite values may take a different time.

    Raises:
      RuntimeError: If the loss is NaN or infinite.
    """
    if not math.isfinite(loss):
        raise RuntimeError(f"the loss became {loss}; the times are meaningless")


def make_parser(name: str, description: str, *, out: bool = False) -> argparse.ArgumentParser:
    """Returns the parser of a command.

    Args:
      name: The command, as in `python -m benchmarks.<name>`.
      description: The text that --help shows first.
      out: Whether the command appends records to a file, which --out chooses.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if out:
        parser.add_argument(
            "--out",
            type=Path,
            default=default_output(name),
            metavar="FILE",
            help=f"file to append records to (default: benchmarks/results/{name}.jsonl)",
        )
    return parser


def default_output(name: str) -> Path:
    """Returns the file that a command appends its records to by default."""
    return RESULTS / f"{name}.jsonl"


def reject(error: Exception) -> int:
    """Prints an error in one line and returns the exit code 1."""
    print(f"error: {shorten(str(error), 800)}", file=sys.stderr)
    return 1


def check_between(name: str, value: float, low: float, high: float) -> None:
    """Checks the value of an option.

    Raises:
      UserError: If it is not within [low, high].
    """
    if not low <= value <= high:
        raise UserError(f"{name} must be from {low:,} to {high:,}, got {shorten(str(value), 40)}")


def check_minutes(value: float) -> None:
    """Checks the option --minutes.

    Raises:
      UserError: If it is not above 0.
    """
    if not value > 0:
        raise UserError(f"--minutes must be above 0, got {value}")


def check_seconds(value: float) -> None:
    """Checks the option --seconds.

    Raises:
      UserError: If it is not above 0 and at most an hour.
    """
    if not 0 < value <= 3600:
        raise UserError(f"--seconds must be above 0, and at most 3,600, got {value}")


def parse_batch_size(case: str, text: str) -> int:
    """Returns the batch size in a case such as "cnn3:32".

    Raises:
      UserError: If it is not a whole number from 1 to MAX_BATCH_SIZE.
    """
    if not (text.isdecimal() and len(text) < 9 and 1 <= int(text) <= MAX_BATCH_SIZE):
        raise UserError(f"{quote(case)} is not {CASE} with a BATCH from 1 to {MAX_BATCH_SIZE:,}")
    return int(text)


def require_packages(*names: str) -> None:
    """Checks that optional packages are installed.

    Raises:
      UserError: If one is missing; the message has the command that installs it.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"this needs {' and '.join(missing)}; run `make reference` or "
            "`pip install -r requirements-reference.txt`"
        )


def check_folder(option: str, path: Path) -> None:
    """Checks that files can be written to a directory, which need not exist yet.

    Raises:
      UserError: If it or, if it does not exist, its nearest existing parent cannot be written.
    """
    folder = path.absolute()
    while not os.path.lexists(folder):
        folder = folder.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise UserError(f"{option} {path} cannot be used: {folder} is not a writable directory")


def warn_if_busy(record: Record) -> None:
    """Prints a warning if other processes took much of the processor's time."""
    if record["is_busy"]:
        print(
            f"warning: other processes took {record['used_elsewhere']:.0%} of the processor's "
            "time; these times mean little (the record says so)",
            file=sys.stderr,
        )


def background(load: float | None) -> Record:
    """Returns the fields of a record that describe the load by other processes.

    Args:
      load: The share of the cores' time, see `idle.background_load`.
    """
    return {"used_elsewhere": load, "is_busy": load is not None and load > MAX_BACKGROUND_LOAD}


def open_output(path: Path) -> TextIO:
    """Opens a file of JSON lines for appending and creates its directory.

    Commands call this before they measure anything, so that a wrong path costs no measurement.

    Raises:
      UserError: If the file cannot be opened.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a")
    except OSError as error:
        reason = f"{error.filename}: {error.strerror or error}"
        raise UserError(f"cannot write to {path}: {reason}") from error


def append(file: TextIO, *records: Record) -> None:
    """Appends each record to an open file as a line of JSON, and flushes the file."""
    file.writelines(json.dumps(record) + "\n" for record in records)
    file.flush()


def run_cases(
    cases: Iterable[tuple[str, Callable[[], Record]]],
    path: Path,
    table: Callable[[Sequence[Record]], str],
) -> int:
    """Measures every case, appends its record to a file, and prints a table of all records.

    If a case fails, for example because it runs out of memory, its traceback is printed and the
    remaining cases are measured.

    Args:
      cases: The name of each case and the function that measures it.
      path: The file of the records.
      table: Formats records as a table whose last line shows the last record.

    Returns:
      The exit code, 1 if a case failed.

    Raises:
      UserError: If the file cannot be opened.
      OSError: If it cannot be written.
    """
    import jax

    records, failed = [], []
    with open_output(path) as output:
        for name, measure in cases:
            try:
                records.append(measure())
            except Exception:
                traceback.print_exc()
                failed.append(name)
            else:
                append(output, records[-1])
                print(table(records[-1:]).splitlines()[-1], file=sys.stderr)
                if "is_busy" in records[-1]:
                    warn_if_busy(records[-1])
            jax.clear_caches()
            gc.collect()
    print(table(records))
    return report_failed(failed)


def report_failed(names: Sequence[str]) -> int:
    """Prints the names of what failed, if anything did, and returns the exit code."""
    if names:
        print(f"failed (see above): {', '.join(dict.fromkeys(names))}", file=sys.stderr)
    return 1 if names else 0
