"""A JAX/Flax benchmark suite for CIFAR."""

import sys

__version__ = "0.1.0"

# `python -m cifar_jax.NAME` imports this package first, with "-m" in place of the program's name.
# Some commands then import for seconds, and Ctrl-C would print where it interrupted that.
if sys.argv[:1] == ["-m"]:
    from cifar_jax.runtime.signals import exit_on_signals

    exit_on_signals(b"stopped\n")
