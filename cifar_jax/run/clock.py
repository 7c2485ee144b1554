"""How long calls to the device take, and from that how long the next one may be."""

import time
from collections import deque
from typing import NamedTuple

from cifar_jax.metrics import Metrics, fetch

# Work per call where its length is automatic: short enough for a lively progress bar and a prompt
# answer to SIGTERM, long enough that the call itself (0.1 ms) costs nothing.
_SECONDS_PER_CALL = 1.0


class Call(NamedTuple):
    """A call to the device whose numbers are not fetched yet.

    Attributes:
      metrics: of the epoch, at the end of the call.
      first_step: of the run, before the call.
      num_steps: that the call takes.
      started: by time.perf_counter().
    """

    metrics: Metrics
    first_step: int
    num_steps: int
    started: float


class Clock:
    """Times calls, and says how long the next one may be.

    Attributes:
      seconds: of training in this epoch so far; the gaps in which nothing runs do not count.
      step_times: ms per step, a mean over each of the latest 2,000 calls; without each process's
        first call, which warms the device up.
    """

    def __init__(self, steps_per_call: int, seconds: float = 0.0, step_times=()):
        """`steps_per_call` as in the config; the rest as an earlier clock had it."""
        self.seconds = seconds
        self.step_times = deque(step_times, maxlen=2000)
        self._steps_per_call = steps_per_call
        self._step_seconds = 0.0
        self._last_end = 0.0

    def next_steps(self, steps_left: int) -> int:
        """Returns how many steps the next call takes."""
        wanted = self._steps_per_call
        if not wanted:  # one step until there is a time to go by
            wanted = round(_SECONDS_PER_CALL / self._step_seconds) if self._step_seconds else 1
        return min(max(wanted, 1), steps_left)

    def wait(self, call: Call) -> dict[str, float]:
        """Waits for a call to end and returns the epoch's metrics so far."""
        values = fetch(call.metrics)
        end = time.perf_counter()
        elapsed = end - max(call.started, self._last_end)
        self._last_end = end
        self.seconds += elapsed
        if self._step_seconds:
            self.step_times.append(1e3 * elapsed / call.num_steps)
        self._step_seconds = elapsed / call.num_steps
        return values
