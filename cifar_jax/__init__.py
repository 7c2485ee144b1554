"""A JAX/Flax benchmark suite for CIFAR."""

import itertools
import sys

__version__ = "0.1.0"

# `python -m cifar_jax.NAME` imports this package first, while sys.argv[0] is still "-m". Some
# commands then spend seconds on imports, during which Ctrl-C would print a traceback.
if sys.argv[:1] == ["-m"] and any(
    flag == "-m" and name.partition(".")[0] == __name__
    for flag, name in itertools.pairwise(sys.orig_argv)
):
    from cifar_jax.runtime.signals import exit_on_signals

    exit_on_signals(b"stopped\n")
