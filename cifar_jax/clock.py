"""Times calls to the device, and derives the length of the next call."""

import time
from collections import deque
from typing import NamedTuple

from cifar_jax.metrics import Metrics, fetch

# Duration of a call if its length is automatic: short enough to update the progress bar and respond
# to SIGTERM promptly, long enough to make the overhead of a call negligible (0.9 to 2.5 ms on an
# H100; see benchmarks/harness.py).
_SECONDS_PER_CALL = 1.0


class Call(NamedTuple):
    """A call to the device whose metrics have not been fetched yet.

    Attributes:
      metrics: The epoch's metrics at the end of the call.
      first_step: Steps of the run taken before the call.
      num_steps: Steps taken by the call.
      started: The time.perf_counter() at the start of the call.
    """

    metrics: Metrics
    first_step: int
    num_steps: int
    started: float


class Clock:
    """Times calls and chooses the length of the next one.

    Attributes:
      seconds: Training time in this epoch so far, excluding gaps in which no call runs.
      step_times: Mean ms per step in each of the latest 2,000 calls, excluding the first call of
        each process, which warms up the device.
      step_seconds: Duration of a step in the latest call; 0 before the first call ends.
      agreed_step_seconds: The duration that determines the length of the next call if several
        processes have to agree on it; otherwise None, and `step_seconds` determines it.
    """

    def __init__(self, steps_per_call: int):
        """Creates a clock; see config/base.py for `steps_per_call`."""
        self.seconds = 0.0
        self.step_times = deque(maxlen=2000)
        self._steps_per_call = steps_per_call
        self.step_seconds = 0.0
        self.agreed_step_seconds: float | None = None
        self._last_end = 0.0

    def next_steps(self, steps_left: int) -> int:
        """Returns the number of steps of the next call."""
        wanted, seconds = self._steps_per_call, self.agreed_step_seconds
        seconds = self.step_seconds if seconds is None else seconds
        if not wanted:  # one step until a step has been timed
            wanted = round(_SECONDS_PER_CALL / seconds) if seconds else 1
        return min(max(wanted, 1), steps_left)

    def wait(self, call: Call) -> dict[str, float]:
        """Waits for a call to finish and returns the epoch's metrics so far."""
        values = fetch(call.metrics)
        end = time.perf_counter()
        elapsed = end - max(call.started, self._last_end)
        self._last_end = end
        self.seconds += elapsed
        if self.step_seconds:
            self.step_times.append(1e3 * elapsed / call.num_steps)
        self.step_seconds = elapsed / call.num_steps
        return values
