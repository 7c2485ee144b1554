"""Searches for hyperparameters with Optuna.

    python -m cifar_jax.search --config configs/coarse/random_search.py --trials 10

Trains trials with values from the search space of the config, `config.search`, and compares them on
a validation split. Start the same command several times, on one machine or on several that share
the workdir, and the workers share the trials. Run it again after an interruption, and it continues;
with a larger --trials, it adds trials. Each trial is a run in WORKDIR/trials. At the end, the best
trial and the command that trains the winner are printed, and WORKDIR/search.html shows all trials.
The workdir is runs/<experiment>/search by default. The study is stored in a file in it, or, with
--storage URL, in a database that Optuna supports.
"""

import os
import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from cifar_jax.config import command_line
from cifar_jax.errors import UserError
from cifar_jax.runtime import entry
from cifar_jax.runtime.signals import Preempted

_STOPPED = b"stopped; the same command continues the search\n"


def main(argv: list[str]) -> int:
    """Parses the command line, trains trials, and returns the exit code."""
    try:
        config, values = command_line.parse(argv, __doc__, _define, _varied)
        if values.trials is not None:
            config.search.num_trials = values.trials
        if values.storage == "":
            raise UserError("--storage is empty")
        workdir = Path(values.workdir or Path("runs") / config.experiment / "search")
        # Several workers may share a GPU, which the first would otherwise keep for itself.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        try:
            # These import jax, which takes a second, so the command line is checked first.
            from cifar_jax.study import ending, worker
            from cifar_jax.study.progress import Progress
        except ImportError as error:
            if error.name not in ("optuna", "sqlalchemy"):
                raise
            raise UserError(
                "the search needs the package optuna: pip install -r requirements-search.txt"
            ) from error

        search = worker.open_search(config, workdir, values.storage)
        with Progress(config.selected_by) as progress:
            worker.work(search, progress)
        return ending.show(search, command_line.config_path(argv))
    except Preempted as stopped:
        print(stopped)
        return stopped.exit_code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _varied(config: ConfigDict) -> set[str]:
    """Returns the fields that differ in trials; see study/settings.py for the last two."""
    from cifar_jax.study import space

    fields = {parameter.field for parameter in space.parse(config.search.space)}
    return fields | {"selected_on", "data.val_fraction"}


def _define(values: flags.FlagValues) -> None:
    text = "Number of trials over all workers; config.search.num_trials by default."
    flags.DEFINE_integer("trials", None, text, flag_values=values)
    text = "URL of an Optuna storage, such as sqlite:///study.db; a file in WORKDIR by default."
    flags.DEFINE_string("storage", None, text, flag_values=values)


if __name__ == "__main__":
    entry.run(main, stop_message=_STOPPED)
