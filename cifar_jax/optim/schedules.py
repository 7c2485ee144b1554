"""Learning rate schedules: functions of the step, built from durations in epochs."""

from collections.abc import Sequence

import optax

from cifar_jax.errors import UserError, unknown

SCHEDULES = ("constant", "step", "cosine", "inverse_time", "exponential")


def create(
    name: str,
    learning_rate: float,
    *,
    steps_per_epoch: int,
    num_epochs: float,
    warmup_epochs: float = 0.0,
    step_epochs: Sequence[float] = (),
    step_factor: float = 0.1,
    final_learning_rate: float = 0.0,
    decay: float = 0.0,
) -> optax.Schedule:
    """Builds a schedule: a linear warm-up from 0, then `name`.

    Args:
      name: "constant"; "step": times `step_factor` at each of `step_epochs`; "cosine": half a
        cosine from the end of the warm-up down to `final_learning_rate` at the end of training;
        "inverse_time": divided by 1 + `decay` * step, the `decay` of Keras' optimisers;
        "exponential": times `step_factor` at every epoch.
      learning_rate: the peak.
      steps_per_epoch: optimiser steps.
      num_epochs: length of the training, the warm-up included.
      warmup_epochs: 0 for none.
      step_epochs: counted from the start of training, the warm-up included; increasing.
      step_factor: of "step" and "exponential"; above 1 the rate grows.
      final_learning_rate: of "cosine".
      decay: of "inverse_time"; steps count from the end of the warm-up.

    Returns:
      A function of the step (counted from 0) to the rate.

    Raises:
      UserError: for an unknown name or a value out of its range.
    """
    if name not in SCHEDULES:
        raise unknown("schedule", name, SCHEDULES)
    if not 0 < learning_rate < float("inf"):
        raise UserError(f"optim.learning_rate needs a value above 0, not {learning_rate}")
    if not 0 <= final_learning_rate <= learning_rate:
        raise UserError(
            f"optim.final_learning_rate needs 0 to the learning rate, not {final_learning_rate}"
        )
    if not 0 <= warmup_epochs < num_epochs:
        raise UserError(
            f"optim.warmup_epochs needs 0 or more and less than num_epochs = {num_epochs}, "
            f"not {warmup_epochs}"
        )
    if name == "step" and not step_epochs:
        raise UserError("optim.schedule 'step' needs optim.step_epochs, the epochs to step at")
    if list(step_epochs) != sorted(set(step_epochs)) or min(step_epochs, default=1) <= 0:
        raise UserError(
            f"optim.step_epochs need to increase from above 0, not {tuple(step_epochs)}"
        )
    if warmup_epochs and min(step_epochs, default=num_epochs) < warmup_epochs:
        raise UserError(
            f"optim.step_epochs need to lie behind the warm-up of {warmup_epochs} epochs, "
            f"not {tuple(step_epochs)}"
        )
    if not step_factor > 0:
        raise UserError(f"optim.step_factor needs a value above 0, not {step_factor}")
    if not decay >= 0:
        raise UserError(f"optim.decay needs 0 or more, not {decay}")
    if decay and name != "inverse_time":
        raise UserError(f"optim.decay is the schedule inverse_time's; this one is {name}")
    warmup = round(warmup_epochs * steps_per_epoch)
    total = round(num_epochs * steps_per_epoch)
    if warmup >= total:
        raise UserError(
            f"optim.warmup_epochs {warmup_epochs} leaves nothing of {total} steps of training"
        )
    if name == "constant":
        schedule = optax.constant_schedule(learning_rate)
    elif name == "step":
        boundaries = {}
        for epoch in step_epochs:
            step = round(epoch * steps_per_epoch) - warmup
            boundaries[step] = boundaries.get(step, 1.0) * step_factor
        schedule = optax.piecewise_constant_schedule(learning_rate, boundaries)
    elif name == "inverse_time":
        schedule = lambda step: learning_rate / (1.0 + decay * step)  # noqa: E731
    elif name == "exponential":
        schedule = optax.exponential_decay(
            learning_rate, steps_per_epoch, step_factor, staircase=True
        )
    else:
        schedule = optax.cosine_decay_schedule(
            learning_rate, total - warmup, alpha=final_learning_rate / learning_rate
        )
    if not warmup:
        return schedule
    ramp = optax.linear_schedule(0.0, learning_rate, warmup)
    return optax.join_schedules([ramp, schedule], [warmup])


def depends_on_length(name: str) -> bool:
    """Whether another num_epochs changes the rates of the epochs before it."""
    return name == "cosine"
