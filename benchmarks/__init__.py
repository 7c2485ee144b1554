"""Measurements: each command appends its logs to benchmarks/results/ and prints a table."""

import sys

if sys.argv[:1] == ["-m"]:  # as in cifar_jax/__init__.py
    from cifar_jax.runtime.signals import exit_on_signals

    exit_on_signals(b"stopped\n")
