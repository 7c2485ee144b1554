"""Trains runs one after the other, in this process."""

import sys
import time
import traceback

import jax

from benchmarks.accuracy.runs import PlannedRun, copy_log, is_done
from cifar_jax.errors import UserError
from cifar_jax.runtime.signals import Preempted, exit_on_signals
from cifar_jax.train import train


def train_all(runs: list[PlannedRun], deadline: float) -> dict[str, str]:
    """Trains the runs that are not complete and copies their logs.

    Args:
      runs: The runs, in order.
      deadline: When to save and stop, a value of time.monotonic().

    Returns:
      The error message of each run that failed, by its title.

    Raises:
      Preempted: After SIGTERM, SIGINT or SIGHUP, once the state is saved.
    """
    failed = {}
    for run in runs:
        if time.monotonic() >= deadline:
            break
        print(f"\n{run.title}:")
        exit_on_signals()
        try:
            if is_done(run):
                continue
            train(run.settings, run.workdir, deadline=deadline)
            copy_log(run)
        except Preempted as stopped:
            if time.monotonic() < deadline:
                raise
            print(stopped)
            break
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            failed[run.title] = str(error)
        except Exception as error:  # a failed run does not stop the others
            traceback.print_exc()
            failed[run.title] = f"{type(error).__name__}: {error}".splitlines()[0]
        finally:
            jax.clear_caches()  # frees the compiled programs of this network
    return failed
