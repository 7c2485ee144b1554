"""The host's side of training: calls to the device, one ahead of the numbers, and timed."""

import math
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from cifar_jax.engine import Engine, Plan
from cifar_jax.errors import UserError
from cifar_jax.metrics import Metrics, fetch
from cifar_jax.step import TrainState

# Work per call where its length is automatic: short enough for a lively progress bar and a prompt
# answer to SIGTERM, long enough that the call itself (0.1 ms) costs nothing.
_SECONDS_PER_CALL = 1.0


class Diverged(UserError):
    """The loss is no longer a finite number."""


WHAT_TO_DO = (
    "What was saved before is kept. Lower optim.learning_rate or set optim.clip_norm, in a "
    "--workdir of its own"
)


class _Call(NamedTuple):
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

    def wait(self, call: _Call) -> dict[str, float]:
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


def run_until(
    engine: Engine,
    state: TrainState,
    metrics: Metrics,
    plan: Plan,
    first_step: int,
    last_step: int,
    clock: Clock,
    *,
    should_stop: Callable[[int], bool],
    progress: Callable[[int, dict[str, float]], Any],
) -> tuple[TrainState, Metrics, dict[str, float], int]:
    """Trains from first_step to last_step of one epoch, or until should_stop says so.

    A call's numbers are fetched while the next one runs, so the device never waits for the host.

    Args:
      engine: runs the steps.
      state: at first_step; given up.
      metrics: of the epoch so far.
      plan: of the epoch.
      first_step: of the run.
      last_step: of the run; at most the epoch's end.
      clock: times the calls.
      should_stop: told the step reached, asked before each call.
      progress: told the step and the epoch's metrics after each call.

    Returns:
      State, metrics, the metrics' values ({} where no step was taken) and the step reached.

    Raises:
      Diverged: where the loss is not finite.
    """
    step, under_way, values = first_step, None, {}
    while True:
        call = None
        if step < last_step and not should_stop(step):
            num_steps = clock.next_steps(last_step - step)
            started = time.perf_counter()
            state, metrics = engine.run(state, metrics, plan, num_steps)
            call = _Call(engine.snapshot(metrics), step, num_steps, started)
            step += num_steps
        if under_way is not None:
            values = clock.wait(under_way)
            reached = under_way.first_step + under_way.num_steps
            if not math.isfinite(values["loss"]):
                raise Diverged(
                    f"the loss became {values['loss']} in steps {under_way.first_step + 1} to "
                    f"{reached}. {WHAT_TO_DO}"
                )
            progress(reached, values)
        if call is None:
            return state, metrics, values, step
        under_way = call
