"""Runs cifar_jax.main without drawing figures, for tests/test_several_processes.py."""

from cifar_jax import main as command
from cifar_jax.runtime import entry

if __name__ == "__main__":
    command._draw = lambda workdir: None
    entry.run(command.main)
