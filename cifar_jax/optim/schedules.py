"""Learning rate schedules: functions of the step, created by name from durations in epochs.

A schedule is one function in SCHEDULES. It receives the peak learning rate. Its keyword-only
arguments are passed by name; they can be any fields of `config.optim`, and

  steps_per_epoch: Number of optimizer steps per epoch. A schedule that jumps at a step must compute
    that step in integers: a compiler may turn a division by a constant into a multiplication, which
    rounds differently.
  num_steps: Number of steps from the end of the warm-up to the end of training.

It returns a function from the step, counted from the end of the warm-up, to the learning rate. It
raises UserError for a field that is out of range.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cifar_jax.errors import UserError, check_kind
from cifar_jax.optim.options import as_floats, check_options, keywords, pick, require

# Safely above the smallest normal float32, 1.2e-38; smaller numbers may be flushed to 0.
_MIN_LEARNING_RATE = 1e-37


def create(
    name: str,
    learning_rate: float,
    *,
    steps_per_epoch: int,
    num_epochs: float,
    warmup_epochs: float = 0.0,
    **options: Any,
) -> optax.Schedule:
    """Creates a schedule, preceded by a linear warm-up from 0 to its initial learning rate.

    Args:
      name: Key of SCHEDULES.
      learning_rate: Peak learning rate.
      steps_per_epoch: Number of optimizer steps per epoch.
      num_epochs: Duration of the training, including the warm-up.
      warmup_epochs: Duration of the warm-up; 0 for none.
      **options: Options of the schedule. Those of other schedules are ignored, except `decay`.

    Returns:
      A function from the step, counted from 0, to the learning rate.

    Raises:
      UserError: If the name or an option is unknown, or a value is out of range.
    """
    check_options(
        name,
        SCHEDULES,
        options,
        kind="schedule",
        field="optim.schedule",
        # Keras's optimizers apply their `decay` with any schedule.
        exclusive=("decay",),
    )
    check_kind("optim.learning_rate", learning_rate, 0.0)
    check_kind("optim.warmup_epochs", warmup_epochs, 0.0)
    require(learning_rate > _MIN_LEARNING_RATE, "learning_rate", "above 0", learning_rate)
    require(warmup_epochs >= 0, "warmup_epochs", "at least 0", warmup_epochs)
    if warmup_epochs >= num_epochs:
        raise UserError(
            f"optim.warmup_epochs must be less than num_epochs = {num_epochs}, got "
            f"{warmup_epochs}; for a short trial, set warmup_epochs to 0"
        )
    num_warmup_steps = round(warmup_epochs * steps_per_epoch)
    total = round(num_epochs * steps_per_epoch)
    if num_warmup_steps >= total:
        raise UserError(
            f"optim.warmup_epochs = {warmup_epochs} leaves no step after the warm-up: "
            f"training has {total} steps in total"
        )
    learning_rate = float(learning_rate)
    options = as_floats(options) | {
        "steps_per_epoch": steps_per_epoch,
        "num_steps": total - num_warmup_steps,
        "warmup_epochs": warmup_epochs,
    }
    schedule = SCHEDULES[name](learning_rate, **pick(options, SCHEDULES[name]))
    if not num_warmup_steps:
        return schedule
    start = float(schedule(0))
    if not start:
        raise UserError(
            "optim.warmup_epochs needs optim.base_learning_rate above 0 with the schedule "
            f"{name!r}, which starts at it"
        )
    return _warmed_up(schedule, start, num_warmup_steps)


def _warmed_up(schedule: optax.Schedule, start: float, num_steps: int) -> optax.Schedule:
    """Returns a linear rise from 0 to `start` in `num_steps` steps, followed by the schedule."""

    def learning_rate(step):
        ramp = start - start * (1 - jnp.clip(step, 0, num_steps) / num_steps)
        # The schedule is evaluated during the warm-up too. Without abs, its step would be negative
        # there, and inverse_time might divide by 0.
        return jnp.where(step < num_steps, ramp, schedule(abs(step - num_steps)))

    return learning_rate


def depends_on_length(name: str) -> bool:
    """Returns whether a change of num_epochs changes the learning rates of earlier epochs."""
    return "num_steps" in keywords(SCHEDULES[name])


def constant(learning_rate: float) -> optax.Schedule:
    """Keeps the learning rate constant."""
    return optax.constant_schedule(learning_rate)


def step(
    learning_rate: float,
    *,
    steps_per_epoch: int,
    warmup_epochs: float = 0.0,
    step_epochs: Sequence[float] = (),
    step_factor: float = 0.1,
) -> optax.Schedule:
    """Multiplies the learning rate by `step_factor` at each of `step_epochs`.

    Args:
      learning_rate: Initial learning rate.
      steps_per_epoch: See the module's docstring.
      warmup_epochs: Duration of the warm-up.
      step_epochs: Increasing epochs, counted from the start of training, warm-up included.
      step_factor: Factor at each of them, above 0.
    """
    if not step_epochs:
        raise UserError("optim.schedule 'step' needs optim.step_epochs, a list of epochs")
    if list(step_epochs) != sorted(set(step_epochs)) or step_epochs[0] <= 0:
        raise UserError(
            f"optim.step_epochs must be above 0 and increasing, got {tuple(step_epochs)}"
        )
    if step_epochs[0] < warmup_epochs:
        raise UserError(
            f"optim.step_epochs must come after the warm-up of {warmup_epochs} epochs, "
            f"got {tuple(step_epochs)}"
        )
    require(step_factor > 0, "step_factor", "above 0", step_factor)
    num_warmup_steps = _round(warmup_epochs * steps_per_epoch)
    drops = [_round(epoch * steps_per_epoch) - num_warmup_steps for epoch in step_epochs]

    def schedule(step):
        rate = jnp.float32(learning_rate)
        for drop in drops:
            rate = jnp.where(step < drop, rate, jnp.float32(step_factor) * rate)
        return rate

    return schedule


def exponential(
    learning_rate: float, *, steps_per_epoch: int, step_factor: float = 0.1
) -> optax.Schedule:
    """Multiplies the learning rate by `step_factor`, above 0, after every epoch."""
    require(step_factor > 0, "step_factor", "above 0", step_factor)
    # optax's staircase divides in floating point, and is a step late if an epoch has 41, 47, 55, 61
    # or certain other numbers of steps.
    return lambda step: learning_rate * step_factor ** jnp.float32(step // steps_per_epoch)


def inverse_time(learning_rate: float, *, decay: float = 0.0) -> optax.Schedule:
    """Divides the learning rate by 1 + `decay` * step, as the `decay` of Keras's optimizers does.

    The decay is 0 or more.
    """
    require(decay >= 0, "decay", "at least 0", decay)
    return lambda step: learning_rate / (1.0 + decay * step)


def polynomial(
    learning_rate: float, *, num_steps: int, final_learning_rate: float = 0.0, power: float = 1.0
) -> optax.Schedule:
    """Decays to `final_learning_rate` at the end of training, linearly with a `power` of 1."""
    _require_at_most_peak("final_learning_rate", final_learning_rate, learning_rate)
    require(power > 0, "power", "above 0", power)
    return optax.polynomial_schedule(learning_rate, final_learning_rate, power, num_steps)


def cosine(
    learning_rate: float, *, num_steps: int, final_learning_rate: float = 0.0
) -> optax.Schedule:
    """Decays to `final_learning_rate` at the end of training along half a cosine."""
    _require_at_most_peak("final_learning_rate", final_learning_rate, learning_rate)
    return _half_cosine(learning_rate, final_learning_rate, num_steps)


def one_cycle(
    learning_rate: float,
    *,
    num_steps: int,
    base_learning_rate: float = 0.0,
    final_learning_rate: float = 0.0,
    rise: float = 0.3,
) -> optax.Schedule:
    """Rises and falls once (Smith and Topin, 2018), like PyTorch's OneCycleLR.

    Args:
      learning_rate: Peak learning rate.
      num_steps: See the module's docstring.
      base_learning_rate: Learning rate at the first step, above 0.
      final_learning_rate: Learning rate at the last step.
      rise: Fraction in (0, 1) of the steps in which the learning rate rises.
    """
    _require_at_most_peak("base_learning_rate", base_learning_rate, learning_rate)
    _require_at_most_peak("final_learning_rate", final_learning_rate, learning_rate)
    require(0 < rise < 1, "rise", "in (0, 1)", rise)
    if not base_learning_rate > _MIN_LEARNING_RATE:
        raise UserError("optim.schedule 'one_cycle' needs optim.base_learning_rate above 0")
    # As in PyTorch, the last step, not the one after it, has the final learning rate.
    up = max(rise * num_steps - 1, 1)
    ramps = (
        _half_cosine(base_learning_rate, learning_rate, up),
        _half_cosine(learning_rate, final_learning_rate, max(num_steps - 1 - up, 1)),
    )
    return optax.join_schedules(ramps, [up])


def linear_one_cycle(
    learning_rate: float,
    *,
    num_steps: int,
    base_learning_rate: float = 0.0,
    final_learning_rate: float = 0.0,
    rise: float = 0.3,
) -> optax.Schedule:
    """Rises and falls once along straight lines, as in KellerJordan/cifar10-airbench.

    Args:
      learning_rate: Peak learning rate.
      num_steps: See the module's docstring.
      base_learning_rate: Learning rate at the first step.
      final_learning_rate: Learning rate at the end of training, that is, after the last step.
      rise: Fraction in (0, 1) of the steps in which the learning rate rises.
    """
    _require_at_most_peak("base_learning_rate", base_learning_rate, learning_rate)
    _require_at_most_peak("final_learning_rate", final_learning_rate, learning_rate)
    require(0 < rise < 1, "rise", "in (0, 1)", rise)
    steps = jnp.float32([0, rise * num_steps, num_steps])
    rates = jnp.float32([base_learning_rate, learning_rate, final_learning_rate])
    return lambda step: jnp.interp(step, steps, rates)


def triangular(
    learning_rate: float,
    *,
    steps_per_epoch: int,
    base_learning_rate: float = 0.0,
    half_cycle_epochs: float = 0.0,
) -> optax.Schedule:
    """Alternates between `base_learning_rate` and the peak (Smith, 2017), like PyTorch's CyclicLR.

    Args:
      learning_rate: Peak learning rate.
      steps_per_epoch: See the module's docstring.
      base_learning_rate: Learning rate at the start of each cycle.
      half_cycle_epochs: Duration of the rise, and of the fall, in a cycle; Smith's step size.
    """
    half_cycle = _half_cycle("triangular", half_cycle_epochs, steps_per_epoch)
    return _cyclical(learning_rate, base_learning_rate, half_cycle, lambda cycle, step: 1.0)


def triangular2(
    learning_rate: float,
    *,
    steps_per_epoch: int,
    base_learning_rate: float = 0.0,
    half_cycle_epochs: float = 0.0,
) -> optax.Schedule:
    """Halves the amplitude of `triangular` after every cycle."""
    half_cycle = _half_cycle("triangular2", half_cycle_epochs, steps_per_epoch)
    return _cyclical(learning_rate, base_learning_rate, half_cycle, lambda cycle, step: 0.5**cycle)


def exp_range(
    learning_rate: float,
    *,
    steps_per_epoch: int,
    base_learning_rate: float = 0.0,
    half_cycle_epochs: float = 0.0,
    cycle_factor: float = 1.0,
) -> optax.Schedule:
    """Multiplies the amplitude of `triangular` by `cycle_factor`, PyTorch's gamma, at every step.

    The factor is in (0, 1].
    """
    require(0 < cycle_factor <= 1, "cycle_factor", "in (0, 1]", cycle_factor)
    half_cycle = _half_cycle("exp_range", half_cycle_epochs, steps_per_epoch)
    return _cyclical(
        learning_rate, base_learning_rate, half_cycle, lambda cycle, step: cycle_factor**step
    )


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    function.__name__: function
    for function in (
        constant,
        step,
        exponential,
        inverse_time,
        polynomial,
        cosine,
        one_cycle,
        linear_one_cycle,
        triangular,
        triangular2,
        exp_range,
    )
}


def _round(num_steps: float) -> np.ndarray:
    """Rounds a number of steps to an int32, clipped at the maximum, which no run reaches."""
    return np.minimum(np.rint(num_steps), 2**31 - 1).astype(np.int32)


def _half_cosine(start: float, end: float, num_steps: float) -> optax.Schedule:
    return optax.cosine_decay_schedule(start, num_steps, alpha=end / start)


def _half_cycle(name: str, half_cycle_epochs: float, steps_per_epoch: int) -> float:
    if not half_cycle_epochs > 0:
        raise UserError(f"optim.schedule {name!r} needs optim.half_cycle_epochs above 0")
    half_cycle = half_cycle_epochs * steps_per_epoch
    if np.min(half_cycle) < 1:
        raise UserError(
            f"optim.half_cycle_epochs must be at least one step long, got {half_cycle_epochs}"
        )
    return half_cycle


def _cyclical(
    peak: float,
    base: float,
    half_cycle: float,
    amplitude: Callable[[jax.Array, jax.Array], jax.Array | float],
) -> optax.Schedule:
    """Returns one of the triangular policies of Smith (2017).

    Args:
      peak: Learning rate in the middle of a cycle.
      base: Learning rate at the start of a cycle.
      half_cycle: Half the duration of a cycle in steps.
      amplitude: Maps the cycle and the step to a factor of peak - base.
    """
    _require_at_most_peak("base_learning_rate", base, peak)

    def schedule(step):
        cycle = jnp.floor(step / (2 * half_cycle))
        height = 1 - jnp.abs(step / half_cycle - 2 * cycle - 1)
        return base + (peak - base) * (height * amplitude(cycle, step))

    return schedule


def _require_at_most_peak(field: str, value: float, peak: float) -> None:
    require(0 <= value <= peak, field, "between 0 and optim.learning_rate", value)
