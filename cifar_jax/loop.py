"""Calls the engine until a given step, and fetches each call's metrics while the next one runs."""

import math
import time
from collections.abc import Callable
from typing import Any

from cifar_jax.clock import Call, Clock
from cifar_jax.engine import Engine, Plan
from cifar_jax.errors import UserError
from cifar_jax.metrics import Metrics
from cifar_jax.step import TrainState


class Diverged(UserError):
    """The loss or a parameter became NaN or infinite.

    Attributes:
      what: The message without advice, such as "the loss became nan in steps 1 to 3".
    """

    def __init__(self, what: str, saved_step: int | None = None):
        """Creates the error, with advice appended to its message.

        Args:
          what: The message, such as "the loss became nan in steps 1 to 3".
          saved_step: The step of the latest checkpoint, or None if there is none.
        """
        advice = "Lower optim.learning_rate or set optim.clip_norm"
        if saved_step is None:
            advice += ". No checkpoint was saved, so the same --workdir can be used again"
        else:
            advice += f", and choose another --workdir: this one holds step {saved_step}"
        super().__init__(f"{what}. {advice}")
        self.what = what


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
    queued: Callable[[TrainState, int], Any] = lambda state, step: None,
) -> tuple[TrainState, Metrics, dict[str, float], int]:
    """Trains from first_step to last_step of one epoch, or until should_stop returns True.

    A call's metrics are fetched while the next call runs, so the device never waits for the host.

    Args:
      engine: The engine that runs the steps.
      state: The state at first_step; its buffers are donated.
      metrics: The epoch's metrics so far.
      plan: The epoch's plan.
      first_step: The step of the run to start from.
      last_step: The step of the run to stop at, at most the end of the epoch.
      clock: Times the calls and chooses their length.
      should_stop: Called with the step reached before each call to the device.
      progress: Called with the step reached and the epoch's metrics after each call.
      queued: Called with the state and the step that each call will reach, before its metrics are
        fetched. It can queue more work for the device, but must not wait.

    Returns:
      The state, the metrics, their values ({} if no step was taken) and the step reached.

    Raises:
      Diverged: If the loss is not finite.
    """
    step, under_way, values = first_step, None, {}
    while True:
        call = None
        if step < last_step and not should_stop(step):
            num_steps = clock.next_steps(last_step - step)
            started = time.perf_counter()
            state, metrics = engine.run(state, metrics, plan, num_steps)
            call = Call(engine.snapshot(metrics), step, num_steps, started)
            step += num_steps
            queued(state, step)
        if under_way is not None:
            values = clock.wait(under_way)
            reached = under_way.first_step + under_way.num_steps
            if not math.isfinite(values["loss"]):
                raise Diverged(
                    f"the loss became {values['loss']} in steps {under_way.first_step + 1} to "
                    f"{reached}"
                )
            progress(reached, values)
        if call is None:
            return state, metrics, values, step
        under_way = call
