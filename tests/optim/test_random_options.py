"""Random options of schedules and optimizers: each is either accepted or a UserError."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from cifar_jax import optim
from cifar_jax.errors import UserError
from cifar_jax.optim.options import keywords

VALUES = [
    *(0, 1, 2, -1, 3.5, 0.1, 0.5, 0.999, 1.0, 1e-3, 1e-46, 1e39, -0.0, 10**40, 2**31, 1e9),
    *(math.nan, math.inf, -math.inf, True, False, None, "", "0.1", "x", "kernels", "all"),
    *((), (1,), (1, 2), (2, 1), (0.5, 4.5), (math.nan,), ("a",), (None,), [1, 2], {1}, {}, print),
]
# Values that suit most options, so that the result is often valid.
USUAL = dict(
    learning_rate=0.1, num_epochs=9, warmup_epochs=0.0, base_learning_rate=0.01, rise=0.3,
    half_cycle_epochs=1.3, step_epochs=(2, 4.5), step_factor=0.5, decay=0.0, power=2.0,
    final_learning_rate=0.001, cycle_factor=0.99,
)  # fmt: skip


def check(create, options):
    """Returns what is created, or None if the options are refused."""
    try:
        return create(**options)
    except UserError as error:
        assert len(str(error)) < 900 and len(str(error).splitlines()) <= 3
    except Exception as error:
        raise AssertionError(f"{options} raises {error!r}") from error
    return None


def pick_one(rng, values):
    return values[rng.integers(len(values))]


def check_schedules(rng, count):
    """Returns the number of random schedules that are accepted, whose values are finite."""
    accepted = 0
    for _ in range(count):
        name = pick_one(rng, list(optim.SCHEDULES))
        known = {"learning_rate", "warmup_epochs", *keywords(optim.SCHEDULES[name])}
        options = {k: v for k, v in USUAL.items() if k in known}
        options |= {"name": name, "steps_per_epoch": int(rng.integers(1, 400)), "num_epochs": 9}
        for option in rng.choice(sorted(known - {"steps_per_epoch", "num_steps"}), 2):
            options[option] = pick_one(rng, VALUES)
        schedule = check(optim.schedules.create, options)
        if schedule is not None:
            accepted += 1
            rates = jnp.stack([jnp.float32(schedule(step)) for step in (0, 1, 5)])
            growth = options.get("step_factor", 0.5)
            assert jnp.all(jnp.isfinite(rates)) or growth > 1, options
    return accepted


def check_optimizers(rng, count):
    """Returns the number of random optimizers that are accepted."""
    accepted = 0
    params = {"kernel": jax.ShapeDtypeStruct((2, 3), jnp.float32)}
    for _ in range(count):
        name = pick_one(rng, list(optim.OPTIMIZERS))
        known = sorted(keywords(optim.create, optim.OPTIMIZERS[name]))
        options = {option: pick_one(rng, VALUES) for option in rng.choice(known, 2)}
        optimizer = check(optim.create, options | {"name": name})
        if optimizer is not None:
            accepted += 1
            jax.eval_shape(optimizer.init, params)
    return accepted


def test_any_schedule_is_either_created_or_refused():
    assert 3 < check_schedules(np.random.default_rng(0), 60) < 50


def test_any_optimizer_is_either_created_or_refused():
    assert 10 < check_optimizers(np.random.default_rng(0), 300) < 290
