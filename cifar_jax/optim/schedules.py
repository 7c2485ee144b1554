"""Learning rate schedules: functions of the step, created from durations in epochs."""

from collections.abc import Sequence

import jax.numpy as jnp
import optax

from cifar_jax.errors import UserError, unknown

CYCLICAL = ("triangular", "triangular2", "exp_range")
SCHEDULES = (
    *("constant", "step", "exponential", "inverse_time", "polynomial", "cosine", "one_cycle"),
    *CYCLICAL,
)


def create(
    name: str,
    learning_rate: float,
    *,
    steps_per_epoch: int,
    num_epochs: float,
    warmup_epochs: float = 0.0,
    base_learning_rate: float = 0.0,
    final_learning_rate: float = 0.0,
    step_epochs: Sequence[float] = (),
    step_factor: float = 0.1,
    decay: float = 0.0,
    power: float = 1.0,
    rise: float = 0.3,
    half_cycle_epochs: float = 0.0,
    cycle_factor: float = 1.0,
) -> optax.Schedule:
    """Creates a schedule, preceded by a linear warm-up from 0 to its initial learning rate.

    "constant" keeps the learning rate.
    "step" multiplies it by `step_factor` at each of `step_epochs`.
    "exponential" multiplies it by `step_factor` after every epoch.
    "inverse_time" divides it by 1 + `decay` * step, as the `decay` of Keras's optimizers does.
    "polynomial" decays it to `final_learning_rate` at the end of training with exponent `power`.
    "cosine" decays it to `final_learning_rate` at the end of training along half a cosine.
    "one_cycle" (Smith and Topin, 2018, as PyTorch's OneCycleLR) rises along half a cosine from
      `base_learning_rate` to the peak during the fraction `rise` of training, then falls along half
      a cosine to `final_learning_rate`.
    "triangular" (Smith, 2017, as PyTorch's CyclicLR) alternates between `base_learning_rate` and
      the peak, with `half_cycle_epochs` in each direction. "triangular2" halves the amplitude after
      every cycle; "exp_range" multiplies it by `cycle_factor` at every step.

    Args:
      name: one of SCHEDULES.
      learning_rate: peak learning rate.
      steps_per_epoch: number of optimizer steps per epoch.
      num_epochs: duration of the training, including the warm-up.
      warmup_epochs: duration of the warm-up; 0 for none.
      base_learning_rate: learning rate at the start of each cycle.
      final_learning_rate: learning rate at the end of training.
      step_epochs: increasing epochs, counted from the start of training including the warm-up.
      step_factor: factor per step or epoch; above 1 the learning rate increases.
      decay: decay per step, counted from the end of the warm-up.
      power: exponent of the polynomial; 1 for linear decay.
      rise: fraction in (0, 1) of the steps after the warm-up.
      half_cycle_epochs: half the duration of a cycle, Smith's step size.
      cycle_factor: factor per step in (0, 1], PyTorch's gamma.

    Returns:
      A function from the step, counted from 0, to the learning rate.

    Raises:
      UserError: for an unknown name or a value out of range.
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    if not 0 < learning_rate < float("inf"):
        raise UserError(f"optim.learning_rate needs a value above 0, not {learning_rate}")
    for field, value in (
        ("base_learning_rate", base_learning_rate),
        ("final_learning_rate", final_learning_rate),
    ):
        if not 0 <= value <= learning_rate:
            raise UserError(
                f"optim.{field} needs a value from 0 to optim.learning_rate, not {value}"
            )
    if not 0 <= warmup_epochs < num_epochs:
        raise UserError(
            f"optim.warmup_epochs needs 0 or more and less than num_epochs = {num_epochs}, "
            f"not {warmup_epochs}"
        )
    if name == "step" and not step_epochs:
        raise UserError("optim.schedule 'step' needs optim.step_epochs, the epochs to step at")
    if not all(isinstance(epoch, int | float) for epoch in step_epochs):
        raise UserError(f"optim.step_epochs need to be numbers, not {step_epochs!r}")
    if list(step_epochs) != sorted(set(step_epochs)) or min(step_epochs, default=1) <= 0:
        raise UserError(
            f"optim.step_epochs need to increase from above 0, not {tuple(step_epochs)}"
        )
    if warmup_epochs and min(step_epochs, default=num_epochs) < warmup_epochs:
        raise UserError(
            f"optim.step_epochs need to lie after the warm-up of {warmup_epochs} epochs, "
            f"not {tuple(step_epochs)}"
        )
    for field, value, is_valid, needs in (
        ("step_factor", step_factor, step_factor > 0, "a value above 0"),
        ("decay", decay, decay >= 0, "0 or more"),
        ("power", power, power > 0, "a value above 0"),
        ("rise", rise, 0 < rise < 1, "a value between 0 and 1"),
        ("cycle_factor", cycle_factor, 0 < cycle_factor <= 1, "a value from above 0 to 1"),
    ):
        if not is_valid:
            raise UserError(f"optim.{field} needs {needs}, not {value}")
    if decay and name != "inverse_time":
        raise UserError(f"optim.decay needs optim.schedule 'inverse_time', not {name!r}")
    if name in CYCLICAL and not half_cycle_epochs > 0:
        raise UserError(f"optim.schedule {name!r} needs optim.half_cycle_epochs above 0")
    if name == "one_cycle" and not base_learning_rate > 0:
        raise UserError("optim.schedule 'one_cycle' needs optim.base_learning_rate above 0")
    warmup = round(warmup_epochs * steps_per_epoch)
    total = round(num_epochs * steps_per_epoch)
    if warmup >= total:
        raise UserError(
            f"optim.warmup_epochs = {warmup_epochs} leaves no step after the warm-up: "
            f"training has {total}"
        )
    remaining = total - warmup
    if name == "constant":
        schedule = optax.constant_schedule(learning_rate)
    elif name == "step":
        boundaries = {}
        for epoch in step_epochs:
            step = round(epoch * steps_per_epoch) - warmup
            boundaries[step] = boundaries.get(step, 1.0) * step_factor
        schedule = optax.piecewise_constant_schedule(learning_rate, boundaries)
    elif name == "exponential":
        schedule = optax.exponential_decay(
            learning_rate, steps_per_epoch, step_factor, staircase=True
        )
    elif name == "inverse_time":
        schedule = lambda step: learning_rate / (1.0 + decay * step)  # noqa: E731
    elif name == "polynomial":
        schedule = optax.polynomial_schedule(learning_rate, final_learning_rate, power, remaining)
    elif name == "cosine":
        schedule = _cosine(learning_rate, final_learning_rate, remaining)
    elif name == "one_cycle":
        # As in PyTorch, the last step has the final learning rate, not the step after it.
        up = max(rise * remaining - 1, 1)
        ramps = (
            _cosine(base_learning_rate, learning_rate, up),
            _cosine(learning_rate, final_learning_rate, max(remaining - 1 - up, 1)),
        )
        schedule = optax.join_schedules(ramps, [up])
    else:
        half_cycle = half_cycle_epochs * steps_per_epoch
        schedule = _cyclical(name, base_learning_rate, learning_rate, half_cycle, cycle_factor)
    if not warmup:
        return schedule
    start = float(schedule(0))
    if not start:
        raise UserError(
            "optim.warmup_epochs needs optim.base_learning_rate above 0 with the schedule "
            f"{name!r}, which begins there"
        )
    ramp = optax.linear_schedule(0.0, start, warmup)
    return optax.join_schedules([ramp, schedule], [warmup])


def _cosine(start: float, end: float, num_steps: float) -> optax.Schedule:
    return optax.cosine_decay_schedule(start, num_steps, alpha=end / start)


def _cyclical(
    name: str, base: float, peak: float, half_cycle: float, factor: float
) -> optax.Schedule:
    """Returns one of the triangular policies of Smith (2017), with `half_cycle` in steps."""

    def schedule(step):
        cycle = jnp.floor(step / (2 * half_cycle))
        height = 1 - jnp.abs(step / half_cycle - 2 * cycle - 1)
        if name == "triangular2":
            height = height * 0.5**cycle
        elif name == "exp_range":
            height = height * factor**step
        return base + (peak - base) * height

    return schedule


def depends_on_length(name: str) -> bool:
    """Returns whether a change of num_epochs changes the learning rates of earlier epochs."""
    return name in ("polynomial", "cosine", "one_cycle")
