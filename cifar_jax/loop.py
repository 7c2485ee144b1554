"""The host's side of training: calls to the device, one ahead of the numbers, and timed."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from cifar_jax.engine import Engine
from cifar_jax.errors import UserError
from cifar_jax.metrics import Metrics, fetch
from cifar_jax.step import TrainState

# Work per call where its length is automatic on the CPU: short enough for a lively progress bar
# and a prompt answer to SIGTERM, long enough that the call itself (0.1 ms) costs nothing.
_SECONDS_PER_CALL = 1.0


class Diverged(UserError):
    """The loss is no longer a finite number."""


class _Call(NamedTuple):
    metrics: Metrics
    first_step: int
    num_steps: int
    started: float


class Clock:
    """Times calls, and says how long the next one may be.

    Attributes:
      seconds: of training in this epoch so far; the gaps in which nothing runs do not count.
      step_times: ms per step of the latest calls, at most 2,000.
    """

    def __init__(self, steps_per_call: int, seconds: float = 0.0, step_times=()):
        """`steps_per_call` as in the config; the rest as an earlier clock had it."""
        self.seconds = seconds
        self.step_times = deque(step_times, maxlen=2000)
        self._steps_per_call = steps_per_call
        self._step_seconds = None
        self._last_end = 0.0

    def next_steps(self, steps_left: int) -> int:
        """Returns how many steps the next call takes."""
        if self._steps_per_call:
            wanted = self._steps_per_call
        elif jax.default_backend() != "cpu":
            wanted = steps_left
        elif self._step_seconds is None:
            wanted = 1
        else:
            wanted = max(1, round(_SECONDS_PER_CALL / self._step_seconds))
        return min(wanted, steps_left)

    def wait(self, call: _Call) -> dict[str, float]:
        """Waits for a call to end and returns the epoch's metrics so far."""
        values = fetch(call.metrics)
        end = time.perf_counter()
        elapsed = end - max(call.started, self._last_end)
        self._last_end = end
        self.seconds += elapsed
        self._step_seconds = elapsed / call.num_steps
        self.step_times.append(1e3 * self._step_seconds)
        return values


def run_until(
    engine: Engine,
    state: TrainState,
    metrics: Metrics,
    order: jax.Array,
    first_step: int,
    last_step: int,
    clock: Clock,
    *,
    should_stop: Callable[[], bool],
    progress: Callable[[int, dict[str, float]], Any],
) -> tuple[TrainState, Metrics, dict[str, float], int]:
    """Trains from first_step to last_step of one epoch, or until should_stop says so.

    A call's numbers are fetched while the next one runs, so the device never waits for the host.

    Args:
      engine: runs the steps.
      state: at first_step; given up.
      metrics: of the epoch so far.
      order: of the epoch.
      first_step: of the run.
      last_step: of the run; at most the epoch's end.
      clock: times the calls.
      should_stop: asked before each call but the first: whatever it says, a run gets on.
      progress: told the step and the epoch's metrics after each call.

    Returns:
      State, metrics, the metrics' values and the step reached.

    Raises:
      Diverged: where the loss is not finite.
    """
    step, under_way, values = first_step, None, {}
    while True:
        call = None
        if step < last_step and not (under_way and should_stop()):
            num_steps = clock.next_steps(last_step - step)
            started = time.perf_counter()
            state, metrics = engine.run(state, metrics, order, num_steps)
            call = _Call(engine.snapshot(metrics), step, num_steps, started)
            step += num_steps
        if under_way is not None:
            values = clock.wait(under_way)
            reached = under_way.first_step + under_way.num_steps
            if not math.isfinite(values["loss"]):
                raise Diverged(
                    f"the loss became {values['loss']} in steps {under_way.first_step + 1} to "
                    f"{reached}: lower optim.learning_rate, or set optim.clip_norm"
                )
            progress(reached, values)
        if call is None:
            return state, metrics, values, step
        under_way = call
