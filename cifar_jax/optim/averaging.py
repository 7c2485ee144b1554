"""Averages of the parameters and the running statistics over the steps of training.

An average moves towards the latest values after each step by a fraction between 0 and 1, its rate.
The rates are a function of the step, as learning rates are. Evaluation uses the average.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cifar_jax.errors import UserError


class Averaging(NamedTuple):
    """The averaging of a run.

    Attributes:
      rate: Maps the step, [] int32 counted from 0, to the rate after that step, [] float32.
      pulls_back: Whether training continues from the average whenever it has moved.
    """

    rate: Callable[[jax.Array], jax.Array]
    pulls_back: bool


def ema(decay: float) -> Averaging:
    """Returns an exponential moving average, whose rate is 1 - decay.

    After t steps, the decay is at most (1 + t) / (10 + t), as in TensorFlow's
    ExponentialMovingAverage; otherwise, the initial values would dominate the average for long.

    Args:
      decay: The decay per step, in (0, 1).

    Raises:
      UserError: If the decay is out of range.
    """
    if not 0 < decay < 1:
        raise UserError(f"ema.decay must be in (0, 1), or 0 for no average, got {decay}")

    def rate(step):
        count = jnp.float32(step) + 1
        return 1 - jnp.minimum(decay, (1 + count) / (10 + count))

    return Averaging(rate, pulls_back=False)


def lookahead(every: int, decay: float, power: float, num_steps: int) -> Averaging:
    """Returns Lookahead (Zhang et al., 2019, arXiv:1907.08610) with a decay that grows over time.

    Every few steps, the average moves towards the parameters and training continues from it. After
    t of T steps, its rate is 1 - decay^every * (t / T)^power, so the average moves almost all the
    way to the parameters at first, and less and less later (Jordan, 2024, arXiv:2404.00498). The
    state of the optimizer, such as momentum, is kept.

    Args:
      every: The number of steps between two moves.
      decay: The final decay per step, in (0, 1).
      power: The exponent, at least 0; 0 for a constant rate.
      num_steps: The number of steps T of the run.

    Raises:
      UserError: If a value is out of range.
    """
    if every < 1:
        raise UserError(f"lookahead.every must be 1 or more, or 0 for no lookahead, got {every}")
    if not 0 < decay < 1:
        raise UserError(f"lookahead.decay must be in (0, 1), got {decay}")
    if power < 0:
        raise UserError(f"lookahead.power must be at least 0, got {power}")

    def rate(step):
        count = step + 1
        moved = 1 - decay**every * (jnp.float32(count) / num_steps) ** power
        return jnp.where(count % every == 0, moved, 0.0)

    return Averaging(rate, pulls_back=True)
