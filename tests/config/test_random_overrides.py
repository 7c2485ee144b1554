"""Random command lines: each is either accepted or a UserError."""

import numpy as np
import tiny

from cifar_jax import config, experiment
from cifar_jax.config import command_line
from cifar_jax.errors import UserError
from cifar_jax.experiment import validation

VALUES = [
    *("0", "1", "2", "-1", "0.1", "0.5", "1.0", "1e-3", "1e-46", "1e39", "nan", "inf", "-inf", ""),
    *("9" * 25, "9" * 5000, "x", "x" * 5000, "True", "false", "None", "()", "(1,)", "(1,2)", "(2"),
    *("(nan,)", "('a',)", "[1]", "{1}", "{", "}", "=", "val", "test", "sgd", "cosine", "step"),
    *("cnn_small", "loss", "accuracy", "flip|", "flip", "crop(4)", "mixup(0.2)", "mlflow,", "é"),
    *("1_0", "0x10", " 1", "1 ", "\n", "lambda: 3", "__import__('os')", "1,2", "1;2", "@", "$x"),
]


def check_overrides(rng, count, *, builds=False):
    """Returns the number of random command lines that are accepted.

    Args:
      rng: A generator.
      count: The number of command lines.
      builds: Whether to also run the checks that build the network.
    """
    path = str(tiny.ROOT / "configs/quickstart.py")
    fields = [*config.flatten(config.load_complete(path)), "optim", "model.x", "lr", ""]
    accepted = 0
    for _ in range(count):
        argv = ["", "--config", path, "--config.model.name=cnn_small"]
        for _ in range(rng.integers(1, 3)):
            prefix = rng.choice(["--config.", "--config.", "-config.", "--noconfig.", "--"])
            value = rng.choice(VALUES[:14] if rng.random() < 0.5 else VALUES)
            argv.append(f"{prefix}{rng.choice(fields)}={value}")
        try:
            chosen, _ = command_line.parse(argv, "a\n\nc")
            if builds:
                experiment.checked(chosen)
            else:
                validation.check_fields(chosen)
        except UserError as error:
            assert len(str(error)) < 900 and len(str(error).splitlines()) <= 3, argv
        except (Exception, SystemExit) as error:
            shown = [arg[:100] for arg in argv[3:]]
            raise AssertionError(f"{shown} raises {error!r}") from error
        else:
            accepted += 1
    return accepted


def test_any_command_line_is_either_accepted_or_refused():
    assert 0 < check_overrides(np.random.default_rng(0), 60) < 50
