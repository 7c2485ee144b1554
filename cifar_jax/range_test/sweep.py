"""Trains with a rate that grows from step to step, or from epoch to epoch."""

import math
from collections.abc import Callable

import jax.numpy as jnp
from ml_collections import ConfigDict

from cifar_jax import experiment
from cifar_jax.errors import UserError
from cifar_jax.metrics import fetch
from cifar_jax.range_test.suggestion import LEAST_POINTS, Point
from cifar_jax.runtime.signals import catch_signals

# Points of the curve where the rate grows with every step.
_NUM_POINTS = 200
# Where the loss (smoothed, where the rate grows by step) is so many times its least, it diverges.
_DIVERGED = 4.0


def run(
    config: ConfigDict, lowest: float, highest: float, num_epochs: int, *, by_epoch: bool = False
) -> tuple[list[Point], str]:
    """Trains with a growing rate until it is over, the loss has diverged, or Ctrl-C.

    Args:
      config: with the fields of cifar_jax/config/base.py.
      lowest: rate of the first step.
      highest: rate of the last step.
      num_epochs: from the one to the other.
      by_epoch: whether the rate stays through each epoch.

    Returns:
      The points, and what ended the test: "rate" (the last is reached), "divergence" or "Ctrl-C".

    Raises:
      UserError: for a wrong config, or where there is no curve yet when the test ends.
    """
    config = config.copy_and_resolve_references()
    config.num_epochs = num_epochs
    config.optim.warmup_epochs = 0.0
    experiment.check(config)
    exp = experiment.create(
        experiment.resolved(config), make_schedule=growth(lowest, highest, num_epochs, by_epoch)
    )
    engine = exp.engine
    total = num_epochs * engine.steps_per_epoch
    if total < LEAST_POINTS:
        raise UserError(f"{total} steps make no curve: raise --epochs, or lower batch_size")
    steps_per_point = engine.steps_per_epoch if by_epoch else max(1, total // _NUM_POINTS)
    steps_per_call = 1 if config.steps_per_call == 1 else steps_per_point
    state, step, points, ended_by = engine.init(), 0, [], "rate"
    tracker, least = _Smooth(0.0 if by_epoch else 0.9), math.inf
    with catch_signals() as stop:
        while step < total and stop.signum is None:
            epoch, done = divmod(step, engine.steps_per_epoch)
            if done == 0:
                plan = engine.plan(state, epoch)
            count = min(steps_per_point, engine.steps_per_epoch - done)
            state, values = _advance(engine, state, plan, count, steps_per_call)
            rates = [float(exp.schedule(i)) for i in (step, step + count - 1)]
            step += count
            if not math.isfinite(values["loss"]):
                ended_by = "divergence"
                break
            accuracy = values["accuracy"]
            if by_epoch:
                accuracy = fetch(exp.evaluate[exp.curve](engine.snapshot(state))[0])["accuracy"]
            points.append(Point(step, math.sqrt(rates[0] * rates[1]), values["loss"], accuracy))
            print(
                f"step {step:>{len(str(total))}}/{total}  rate {points[-1].learning_rate:.2e}  "
                f"loss {values['loss']:.4f}  accuracy {100 * accuracy:.2f}%",
                flush=True,
            )
            smoothed = tracker(values["loss"])
            least = min(least, smoothed)
            if smoothed > _DIVERGED * least:
                ended_by = "divergence"
                break
        if stop.signum is not None:
            ended_by = "Ctrl-C"
    if len(points) < LEAST_POINTS:
        if ended_by == "divergence":
            way_out = f"begin lower than --from {lowest:g}"
        else:
            way_out = "let it run on"
        raise UserError(f"ended by {ended_by} after {len(points)} points, no curve yet: {way_out}")
    return points, ended_by


def _advance(engine, state, plan, num_steps: int, steps_per_call: int):
    """Takes steps within an epoch; returns the state and the means over the steps."""
    metrics = engine.no_metrics()
    for first in range(0, num_steps, steps_per_call):
        count = min(steps_per_call, num_steps - first)
        state, metrics = engine.run(state, metrics, plan, count)
    return state, fetch(engine.snapshot(metrics))


def growth(
    lowest: float, highest: float, num_epochs: int, by_epoch: bool
) -> Callable[[int], Callable]:
    """Returns the maker of the schedule, from the steps of an epoch."""

    def make(steps_per_epoch: int):
        unit = steps_per_epoch if by_epoch else 1
        last = max(num_epochs * steps_per_epoch // unit - 1, 1)
        factor = (highest / lowest) ** (1 / last)
        return lambda step: lowest * factor ** jnp.floor(step / unit)

    return make


class _Smooth:
    """An exponential mean without the bias of its start; with a `keep` of 0 the latest value."""

    def __init__(self, keep: float):
        self._keep, self._sum, self._weight = keep, 0.0, 0.0

    def __call__(self, value: float) -> float:
        self._sum = self._keep * self._sum + (1 - self._keep) * value
        self._weight = self._keep * self._weight + (1 - self._keep)
        return self._sum / self._weight
