"""Runs commands in forked processes, which tests can kill: libraries are imported only once.

Reads one line per run from stdin, a JSON array of the log's path, the command ("main", "prepare",
or "prepare_few" for archives of fake_cifar.py) and its flags. Prints the process id when the
process has started, and its exit status when it has ended.
"""

import json
import os
import sys
import traceback

import fake_cifar
import orbax.checkpoint  # noqa: F401
import pytest
import tensorboardX  # noqa: F401
import tiny

from cifar_jax import experiment, main, prepare, train  # noqa: F401
from cifar_jax.data import builders  # noqa: F401

load_data = experiment.load_data


def load(config):
    """Returns the tiny data set instead of the synthetic one, which takes a second to draw."""
    if config.data.name == "synthetic":
        return tiny.load(config.data.name, val_fraction=config.data.val_fraction)
    return load_data(config)


def run(log: str, command: str, flags: list[str]) -> int:
    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    main._draw = lambda workdir: None
    experiment.load_data = load
    try:
        if command == "main":
            return main.main(["main", *flags])
        if command == "prepare_few":
            fake_cifar.shrink(pytest.MonkeyPatch())
        return prepare.main(flags)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


for line in sys.stdin:
    log, command, *flags = json.loads(line)
    process = os.fork()
    if not process:
        os._exit(run(log, command, flags))
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
