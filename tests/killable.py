"""Trains in forked processes, which tests can kill, so that libraries are imported only once.

Reads one line per run from stdin, a JSON array of the log's path and the flags of cifar_jax.main;
prints the process id at once, and the exit status when the process has ended.
"""

import json
import os
import sys
import traceback

import orbax.checkpoint  # noqa: F401
import tensorboardX  # noqa: F401
import tiny

from cifar_jax import experiment, main, train  # noqa: F401

load_data = experiment.load_data


def load(config):
    """Returns the tiny data set instead of the synthetic one, which takes a second to draw."""
    if config.data.name == "synthetic":
        return tiny.load(config.data.name, val_fraction=config.data.val_fraction)
    return load_data(config)


def run(log: str, flags: list[str]) -> int:
    output = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    main._draw = lambda workdir: None
    experiment.load_data = load
    try:
        return main.main(["main", *flags])
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


for line in sys.stdin:
    log, *flags = json.loads(line)
    process = os.fork()
    if not process:
        os._exit(run(log, flags))
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
