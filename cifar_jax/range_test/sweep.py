"""Trains with a learning rate that grows per step or per epoch."""

import math
from collections.abc import Callable
from typing import NamedTuple

from ml_collections import ConfigDict

from cifar_jax import experiment
from cifar_jax.errors import UserError
from cifar_jax.experiment import Experiment
from cifar_jax.metrics import fetch
from cifar_jax.range_test.suggestion import MIN_POINTS, Point
from cifar_jax.runtime.signals import Preempted, StopRequest, catch_signals

# Number of points in the curve if the learning rate grows per step.
_NUM_POINTS = 200
# The loss counts as diverged when it exceeds this multiple of its minimum. It is smoothed if the
# learning rate grows per step.
_DIVERGED = 4.0


class Ending(NamedTuple):
    """What ended a test.

    Attributes:
      reason: "rate" (the highest learning rate was reached), "divergence" or "Ctrl-C" (a signal).
      exit_code: 0, or 128 + the signal.
    """

    reason: str
    exit_code: int


def run(
    config: ConfigDict, lowest: float, highest: float, num_epochs: int, *, by_epoch: bool = False
) -> tuple[list[Point], Ending]:
    """Trains with a growing learning rate until the highest one, divergence or Ctrl-C.

    Args:
      config: A config with the fields of cifar_jax/config/base.py.
      lowest: Learning rate of the first step.
      highest: Learning rate of the last step.
      num_epochs: Epochs from the lowest to the highest learning rate.
      by_epoch: Whether the learning rate grows per epoch instead of per step.

    Returns:
      The points, and what ended the test.

    Raises:
      UserError: If the config is invalid, or the test ends with fewer than MIN_POINTS points.
      Preempted: If a signal ends it with fewer.
    """
    # Checked as for training: fields that refer to epochs need not fit the epochs of the test.
    config = experiment.checked(config)
    with config.unlocked():
        config.num_epochs = num_epochs
        config.transfer.unfreeze_epochs = ()
        config.augment.train_sizes = config.augment.train_size_epochs = ()
    experiment.check_weights(config)
    exp = experiment.create(
        config,
        experiment.load_data(config),
        make_schedule=growth(lowest, highest, num_epochs, by_epoch),
    )
    total = num_epochs * exp.engine.steps_per_epoch
    if total < MIN_POINTS:
        raise UserError(
            f"{total} steps are too few for a curve: increase --epochs or decrease batch_size"
        )
    with catch_signals() as stop:
        points, ended_by = _sweep(exp, total, config.steps_per_call == 1, by_epoch, stop)
    if stop.signum is not None:
        ended_by = "Ctrl-C"
    if len(points) < MIN_POINTS and stop.signum is not None:
        raise Preempted(stop.signum, f"stopped after {len(points)} points, too few for a curve")
    if len(points) < MIN_POINTS:
        raise UserError(
            f"ended by {ended_by} after {len(points)} points, too few for a curve: choose --from "
            f"below {lowest:g}"
        )
    return points, Ending(ended_by, 0 if stop.signum is None else 128 + stop.signum)


def _sweep(
    exp: Experiment, total: int, single_steps: bool, by_epoch: bool, stop: StopRequest
) -> tuple[list[Point], str]:
    """Takes up to `total` steps; returns the points, and "rate" or "divergence"."""
    engine = exp.engine
    steps_per_point = engine.steps_per_epoch if by_epoch else max(1, total // _NUM_POINTS)
    steps_per_call = 1 if single_steps else steps_per_point
    state, step, points = engine.init(), 0, []
    smooth_loss, min_loss = _ExponentialMean(0.0 if by_epoch else 0.9), math.inf
    while step < total and stop.signum is None:
        epoch, done = divmod(step, engine.steps_per_epoch)
        if done == 0:
            plan = engine.plan(state, epoch)
        count = min(steps_per_point, engine.steps_per_epoch - done)
        state, values = _advance(engine, state, plan, count, steps_per_call)
        rates = [float(exp.schedule(i)) for i in (step, step + count - 1)]
        step += count
        if not math.isfinite(values["loss"]):
            return points, "divergence"
        accuracy = values["accuracy"]
        if by_epoch:
            accuracy = fetch(exp.evaluate[exp.curve](engine.snapshot(state))[0])["accuracy"]
        points.append(Point(step, math.sqrt(rates[0] * rates[1]), values["loss"], accuracy))
        print(
            f"step {step:>{len(str(total))}}/{total}  lr {points[-1].learning_rate:.2e}  "
            f"loss {values['loss']:.4f}  accuracy {100 * accuracy:.2f}%",
            flush=True,
        )
        smoothed = smooth_loss(values["loss"])
        min_loss = min(min_loss, smoothed)
        if smoothed > _DIVERGED * min_loss:
            return points, "divergence"
    return points, "rate"


def _advance(engine, state, plan, num_steps: int, steps_per_call: int):
    """Takes steps within an epoch, and returns the state and the mean metrics of the steps."""
    metrics = engine.no_metrics()
    for first in range(0, num_steps, steps_per_call):
        count = min(steps_per_call, num_steps - first)
        state, metrics = engine.run(state, metrics, plan, count)
    return state, fetch(engine.snapshot(metrics))


def growth(
    lowest: float, highest: float, num_epochs: int, by_epoch: bool
) -> Callable[[int], Callable]:
    """Returns a function that maps the number of steps per epoch to the schedule."""

    def make(steps_per_epoch: int):
        unit = steps_per_epoch if by_epoch else 1
        last = max(num_epochs * (1 if by_epoch else steps_per_epoch) - 1, 1)
        factor = (highest / lowest) ** (1 / last)
        return lambda step: lowest * factor ** (step // unit)

    return make


class _ExponentialMean:
    """A bias-corrected exponential moving average; with a `keep` of 0, the latest value."""

    def __init__(self, keep: float):
        self._keep, self._sum, self._weight = keep, 0.0, 0.0

    def __call__(self, value: float) -> float:
        self._sum = self._keep * self._sum + (1 - self._keep) * value
        self._weight = self._keep * self._weight + (1 - self._keep)
        return self._sum / self._weight
