"""Runs a learning rate range test (Smith, 2017).

    python -m cifar_jax.lr_range_test --config configs/cnn3.py --workdir runs/range_test

Trains with a learning rate that grows by a constant factor per step, from --from to --to over
--epochs epochs, and stops when the loss diverges or on Ctrl-C (with exit code 130). Writes
range_test.csv, range_test.json and range_test.png to the workdir, runs/<experiment>/range_test by
default. Prints the base and max learning rates that Smith's method derives from the accuracy, the
flags for training between them, and the learning rate at which the loss falls fastest. With --by
epoch, the learning rate grows per epoch, and accuracy is measured on the validation split or, if
there is none, on the test set.

Config fields are set as in training, but the config's own schedule, learning rates and epochs have
no effect: there is no warm-up, all layers train from the start, and all images have the size of
evaluation. Groups of parameters (optim.groups) train throughout, and keep the ratio of their
learning rate to optim.learning_rate.
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags

from cifar_jax.config import command_line
from cifar_jax.errors import UserError
from cifar_jax.range_test.suggestion import MIN_POINTS
from cifar_jax.runtime import entry
from cifar_jax.runtime.signals import Preempted, catch_signals

# The default of --epochs, by the value of --by.
_EPOCHS = {"step": 3, "epoch": 25}


def main(argv: list[str]) -> int:
    """Parses the command line, runs the test, writes its files, and returns the exit code."""
    try:
        config, values = command_line.parse(argv, __doc__, _define)
        folder = Path(values.workdir or Path("runs") / config.experiment / "range_test")
        lowest, highest = values["from"].value, values["to"].value
        if not 1e-37 < lowest < highest < 1e38:  # both are float32
            raise UserError(f"--from and --to need 0 < from < to, got {lowest} and {highest}")
        num_epochs = _EPOCHS[values.by] if values.epochs is None else values.epochs
        min_epochs = MIN_POINTS if values.by == "epoch" else 1
        if not min_epochs <= num_epochs < 2**31:
            raise UserError(
                f"--epochs must be at least {min_epochs} with --by={values.by}, got {num_epochs}"
            )
        # These import jax, which takes a second: an invalid command line fails without that delay.
        from cifar_jax.range_test import files, sweep
        from cifar_jax.run import workdir
        from cifar_jax.run.storage import writing

        with workdir.locked(folder):
            if (folder / "config.json").exists():
                raise UserError(f"--workdir {folder} holds a training run: choose another")
            by_epoch = values.by == "epoch"
            points, ending = sweep.run(config, lowest, highest, num_epochs, by_epoch=by_epoch)
            settings = {"from": lowest, "to": highest, "epochs": num_epochs, "by": values.by}
            # Ctrl-C does not interrupt writing the files.
            with catch_signals(), writing(folder, then="run the test again"):
                settings["ended_by"] = ending.reason
                _print(files.write(config, points, folder, settings), folder)
    except Preempted as stopped:
        print(stopped)
        return stopped.exit_code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return ending.exit_code


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_float("from", 1e-5, "First learning rate.", flag_values=values)
    flags.DEFINE_float("to", 1.0, "Last learning rate.", flag_values=values)
    text = "Epochs of the test; by default 3, or 25 with --by=epoch."
    flags.DEFINE_integer("epochs", None, text, flag_values=values)
    text = "Whether the learning rate grows per step or per epoch."
    flags.DEFINE_enum("by", "step", [*_EPOCHS], text, flag_values=values)


def _print(result: dict[str, Any], folder: Path) -> None:
    """Prints the values that `files.write` returns."""
    if result["flags"] is not None:
        base, highest = result["base_learning_rate"], result["max_learning_rate"]
        print(
            f"  base learning rate     {base:.3g} (accuracy begins to rise)\n"
            f"  max learning rate      {highest:.3g} (accuracy peaks)\n"
            f"  steepest loss descent  {result['steepest_learning_rate']:.3g}\n"
            f"  train with             {result['flags']}"
        )
    for warning in result["warnings"]:
        print(f"  warning                {warning}")
    print(f"  results in             {folder}")


if __name__ == "__main__":
    entry.run(main)
