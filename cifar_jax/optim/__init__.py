"""Optimizers, learning rate schedules and callbacks, created from plain values.

To add a schedule or an optimizer, write a function, list it in SCHEDULES (schedules.py) or
OPTIMIZERS (optimizers.py), and add a test.
"""

from cifar_jax.optim import averaging, callbacks, parameter_groups, schedules
from cifar_jax.optim.optimizers import OPTIMIZERS, create
from cifar_jax.optim.options import keywords, pick
from cifar_jax.optim.schedules import SCHEDULES

__all__ = ["OPTIMIZERS", "SCHEDULES"]
__all__ += ["averaging", "callbacks", "create", "keywords", "parameter_groups"]
__all__ += ["pick", "schedules"]
