"""A JAX/Flax benchmark suite for CIFAR."""

import itertools
import sys

__version__ = "0.1.0"

# `python -m cifar_jax.NAME` imports this package first, with "-m" in place of the program's name.
# Some commands then import for seconds, and Ctrl-C would print where it interrupted that.
if sys.argv[:1] == ["-m"] and any(
    flag == "-m" and name.partition(".")[0] == __name__
    for flag, name in itertools.pairwise(sys.orig_argv)
):
    from cifar_jax.runtime.signals import exit_on_signals

    exit_on_signals(b"stopped\n")
