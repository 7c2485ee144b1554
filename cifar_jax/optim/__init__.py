"""Optimizers, learning rate schedules and callbacks, created from plain values.

A new schedule or optimizer needs a function, its name in a registry (SCHEDULES in schedules.py or
OPTIMIZERS in optimizers.py), and a test.
"""

from cifar_jax.optim import callbacks, schedules
from cifar_jax.optim.optimizers import OPTIMIZERS, create, kernels
from cifar_jax.optim.options import pick
from cifar_jax.optim.schedules import SCHEDULES

__all__ = ["OPTIMIZERS", "SCHEDULES", "callbacks", "create", "kernels", "pick", "schedules"]
