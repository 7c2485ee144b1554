import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cifar_jax.optim import create
from cifar_jax.optim.groups import by_group

# A head, and two groups of layers below it.
GROUPS = ((("dense",),), (("layers", 1), ("norm",)), (("layers", 0),))
PARAMS = {
    "dense": {"kernel": jnp.float32([1.0, 2.0])},
    "layers": {0: {"kernel": jnp.float32([3.0])}, 1: {"kernel": jnp.float32([4.0, 5.0])}},
    "norm": {"scale": jnp.float32([6.0])},
}
OPTIMIZERS = {
    "adamw": dict(weight_decay=0.1, weight_decay_mask="kernels"),
    "sgd": dict(momentum=0.9, weight_decay=0.1),
}


def gradients(step):
    return jax.tree.map(lambda x: jnp.sin(x + step), PARAMS)


def run(optimizer, params, steps):
    """Returns the parameters after each step, updated with a learning rate of 0.1."""
    state, after = optimizer.init(params), []
    for step in steps:
        updates, state = optimizer.update(gradients(step), state, params)
        params = optax.apply_updates(params, jax.tree.map(lambda x: 0.1 * x, updates))
        after.append(params)
    return after


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_group_trains_from_its_step_on_as_if_it_started_there(name):
    """Until then, neither gradients nor weight decay change it, and moments stay at zero."""
    optimizer = create(name, **OPTIMIZERS[name])
    grouped = by_group(optimizer, GROUPS, layer_decay=0.5, first_steps=(0, 2, 3))
    found = run(grouped, PARAMS, range(6))
    for i, (first, leaves) in enumerate(
        ((0, lambda p: p["dense"]), (2, lambda p: (p["layers"][1], p["norm"])),
         (3, lambda p: p["layers"][0]))
    ):  # fmt: skip
        slowed = optax.chain(optimizer, optax.scale(0.5**i))
        wanted = [PARAMS] * first + run(slowed, PARAMS, range(first, 6))
        for ours, theirs in zip(found, wanted, strict=True):
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6),
                leaves(ours),
                leaves(theirs),
            )


def test_clipping_takes_the_norm_of_the_groups_that_train():
    optimizer = by_group(
        optax.sgd(1.0), GROUPS, layer_decay=1.0, first_steps=(0, 0, 1), clip_norm=0.5
    )
    state = optimizer.init(PARAMS)
    for step, kept in ((0, ("dense", "norm", 1)), (1, ("dense", "norm", 1, 0))):
        grads = gradients(step)
        parts = {"dense": grads["dense"], "norm": grads["norm"], **grads["layers"]}
        norm = optax.global_norm([parts[name] for name in kept])
        assert norm > 0.5
        updates, state = optimizer.update(grads, state, PARAMS)
        wanted = -0.5 / norm * grads["dense"]["kernel"]
        np.testing.assert_allclose(updates["dense"]["kernel"], wanted, rtol=1e-6)
        assert bool(jnp.any(updates["layers"][0]["kernel"] != 0)) == bool(step)


def test_a_parameter_without_a_group_is_an_error():
    optimizer = by_group(optax.sgd(1.0), GROUPS[:2], layer_decay=0.5, first_steps=(0, 0))
    with pytest.raises(ValueError, match="in 0 groups"):
        optimizer.init(PARAMS)
