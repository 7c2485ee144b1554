"""Lets the processes of a run make the same decisions at the same step.

Whether to stop, whether to save, and how many steps to take next depend on signals and clocks,
which differ between hosts, but a compiled call has to be the same on all of them. So after every
call, each process passes its own view to its devices, which compute the maximum over all processes.
The result is fetched with the metrics of that call, so nothing has to wait for it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cifar_jax.engine import AXIS, replicated


class View(NamedTuple):
    """What the decisions of one process, or of all of them together, are based on.

    Attributes:
      signum: The number of a signal that requests a stop, or 0.
      minutes: The minutes since the last checkpoint.
      step_seconds: The duration of a step in the latest call, or 0.
    """

    signum: float = 0.0
    minutes: float = 0.0
    step_seconds: float = 0.0


class Agreement:
    """The maximum of the views of all processes, as of the latest call that has been fetched."""

    def __init__(self, mesh: jax.sharding.Mesh):
        """Starts with a view of zeros.

        Args:
          mesh: The devices of all processes.
        """
        self._sharding = NamedSharding(mesh, P(AXIS))
        self._max = jax.jit(lambda views: jnp.max(views, axis=0), out_shardings=replicated(mesh))
        self._under_way: list[jax.Array] = []
        self.view = View()

    def propose(self, view: View) -> None:
        """Queues the computation of the maximum after the latest call."""
        row = np.float32([view])
        shape = (self._sharding.mesh.size, row.shape[1])
        views = jax.make_array_from_callback(shape, self._sharding, lambda index: row)
        self._under_way.append(self._max(views))

    def fetch(self) -> View:
        """Waits for the oldest maximum that has not been fetched, and returns it."""
        self.view = View(*np.asarray(self._under_way.pop(0)).tolist())
        return self.view
