"""The front door of training.

    python -m cifar_jax.main --config configs/resnet18.py --workdir runs/resnet18

Any field of the config can be set on the command line: --config.optim.learning_rate=0.05.
Run again with the same workdir, it resumes, or says that it is complete.
"""

import re
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from cifar_jax import config as config_files
from cifar_jax.errors import UserError, unknown

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment: a file of configs/.")
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run's files. Default: runs/<experiment>."
)


def main(argv: list[str]) -> int:
    """Parses the command line, trains, and returns the exit code."""
    try:
        config = _parse(argv)
        # Importing jax takes a second: not before the command line is known to be right.
        from cifar_jax.preemption import Preempted
        from cifar_jax.train import train

        workdir = _WORKDIR.value or Path("runs") / config.experiment
        try:
            train(config, workdir)
        except Preempted as stopped:
            print(stopped)
            return stopped.exit_code
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parse(argv: list[str]):
    """Returns the config of the command line, complete and locked."""
    path = _config_path(argv)
    wants_help = any(re.fullmatch("--?h(elp)?", arg) for arg in argv[1:])
    if path is None and wants_help:
        print(__doc__)
        raise SystemExit(0)
    if path is None:
        raise UserError(f"--config is missing, as in: {__doc__.splitlines()[2].strip()}")
    fields = config_files.flatten(config_files.load(path))
    if wants_help:
        print(__doc__)
        print(f"Fields of {path}, explained in configs/base.py:")
        print("\n".join(f"  --config.{name}={value!r}" for name, value in fields.items()))
        raise SystemExit(0)
    for arg in argv[1:]:
        match = re.match(r"--?config\.([^=]*)", arg)
        if match and match[1] not in fields:
            raise unknown("config field", match[1], fields)
    try:
        rest = flags.FLAGS(argv)[1:]
    except flags.Error as error:
        raise UserError(str(error)) from error
    if rest:
        raise UserError(f"what is {' '.join(rest)!r}? Flags look like --config.seed=1")
    config = _CONFIG.value
    with config.unlocked():
        config.experiment = config_files.experiment_name(path)
    return config


def _config_path(argv: list[str]) -> Path | None:
    """Returns the value of --config, needed before the flags can be parsed."""
    for i, arg in enumerate(argv):
        match = re.fullmatch(r"--?config(?:=(.*))?", arg)
        if match:
            value = match[1] if match[1] is not None else argv[i + 1] if i + 1 < len(argv) else ""
            return Path(value.partition(":")[0])
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv))
