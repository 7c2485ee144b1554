"""The front door of the learning rate range test (Smith, 2017).

    python -m cifar_jax.lr_range_test --config configs/cnn3.py --workdir runs/range_test

Trains with a rate that grows by a constant factor from step to step, from --from to --to, through
--epochs epochs, and stops where the loss diverges, or at Ctrl-C. The workdir gets range_test.csv,
range_test.json and range_test.png; printed are the base and the greatest rate that Smith reads off
the accuracy, the rate at which the loss falls the steepest, and the flags that train with them.
With --by epoch the rate stays through each epoch, and accuracy is that on the validation split (on
the test set without one). Fields of the config are set as in training; its own schedule, rate and
epochs do not matter. Without --workdir the files go to runs/<experiment>/range_test.
"""

import math
import sys
from pathlib import Path
from typing import Any

from absl import flags

from cifar_jax.config import command_line
from cifar_jax.errors import UserError
from cifar_jax.range_test.suggestion import LEAST_POINTS
from cifar_jax.runtime import entry
from cifar_jax.runtime.signals import catch_signals

# What --epochs is by default.
_EPOCHS = {"step": 3, "epoch": 25}


def main(argv: list[str]) -> int:
    """Parses the command line, tests, writes the files, and returns the exit code."""
    try:
        config, values = command_line.parse(argv, __doc__, _define)
        folder = Path(values.workdir or Path("runs") / config.experiment / "range_test")
        lowest, highest = values["from"].value, values["to"].value
        if not 0 < lowest < highest < math.inf:
            raise UserError(f"--from and --to need 0 < from < to, not {lowest} and {highest}")
        num_epochs = _EPOCHS[values.by] if values.epochs is None else values.epochs
        least = LEAST_POINTS if values.by == "epoch" else 1
        if num_epochs < least:
            raise UserError(
                f"--epochs needs {least} or more with --by={values.by}, not {num_epochs}"
            )
        # These import jax, which takes a second, so invalid command lines fail before it.
        from cifar_jax.range_test import files, sweep
        from cifar_jax.run import workdir

        with workdir.locked(folder):
            if (folder / "config.json").exists():
                raise UserError(f"a training lies in --workdir {folder}: choose another")
            by_epoch = values.by == "epoch"
            points, ended_by = sweep.run(config, lowest, highest, num_epochs, by_epoch=by_epoch)
            asked = {"from": lowest, "to": highest, "epochs": num_epochs, "by": values.by}
            with catch_signals():  # a second Ctrl-C does not tear the files
                _print(files.write(config, points, folder, asked | {"ended_by": ended_by}), folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _define(values: flags.FlagValues) -> None:
    flags.DEFINE_float("from", 1e-5, "first rate", flag_values=values)
    flags.DEFINE_float("to", 1.0, "last rate", flag_values=values)
    flags.DEFINE_integer(
        "epochs", None, "from the first to the last rate; 3, by epoch 25", flag_values=values
    )
    kinds = ["step", "epoch"]
    flags.DEFINE_enum("by", "step", kinds, "when the rate grows: step or epoch", flag_values=values)


def _print(found: dict[str, Any], folder: Path) -> None:
    """Prints what `files.write` returns."""
    if found["flags"] is not None:
        base, greatest = found["base_learning_rate"], found["max_learning_rate"]
        print(
            f"  base rate              {base:.3g} (accuracy begins to rise)\n"
            f"  greatest rate          {greatest:.3g} (accuracy is at its top)\n"
            f"  steepest fall of loss  {found['steepest_learning_rate']:.3g}\n"
            f"  train with             {found['flags']}"
        )
    for warning in found["warnings"]:
        print(f"  warning                {warning}")
    print(f"  results in             {folder}")


if __name__ == "__main__":
    entry.run(main)
