from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cifar_jax import models, optim
from cifar_jax.errors import UserError
from cifar_jax.optim import masks

RNG = np.random.default_rng(0)
STEPS = 20
PARAMS = {
    "dense": {
        "kernel": RNG.standard_normal((7, 5)).astype(np.float32),
        "bias": RNG.standard_normal(5).astype(np.float32),
    }
}
# Norms around 6 and 0.06; clipping at 2 must not change the small ones.
GRADS = [
    jax.tree.map(lambda p, s=s: (s * RNG.standard_normal(p.shape)).astype(np.float32), PARAMS)
    for s in [1.0, 0.01] * (STEPS // 2)
]


def trained_by(name, tree):
    """Returns the part of the tree that an optimizer can train: muon trains only kernels."""
    return {"dense": {"kernel": tree["dense"]["kernel"]}} if name == "muon" else tree


def train_ours(steps, **options):
    optimizer = optim.create(**options)
    params = jax.tree.map(jnp.asarray, trained_by(options["name"], PARAMS))
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for grads in GRADS[:steps]:
        updates, state = update(trained_by(options["name"], grads), state, params)
        params = optax.apply_updates(params, updates)
    return params["dense"]


def train_torch(steps, create, clip_norm=None):
    torch = pytest.importorskip("torch")
    params = {name: torch.tensor(p, requires_grad=True) for name, p in PARAMS["dense"].items()}
    optimizer = create(torch.optim, params)
    for grads in GRADS[:steps]:
        for name, p in params.items():
            p.grad = torch.tensor(grads["dense"][name])
        if clip_norm:
            torch.nn.utils.clip_grad_norm_(list(params.values()), clip_norm)
        optimizer.step()
    return {name: p.detach().numpy() for name, p in params.items()}


def decay_kernel_only(params, weight_decay):
    return [
        {"params": [params["kernel"]], "weight_decay": weight_decay},
        {"params": [params["bias"]], "weight_decay": 0.0},
    ]


# Values that differ from PyTorch's defaults, so that a swapped or ignored option is noticed.
ADAM = dict(learning_rate=0.03, beta1=0.8, beta2=0.95, eps=1e-3)
TORCH_ADAM = dict(lr=0.03, betas=(0.8, 0.95), eps=1e-3)
EQUAL = {
    "sgd": (
        dict(name="sgd", learning_rate=0.1),
        lambda o, p: o.SGD(p.values(), 0.1),
    ),
    "sgd momentum": (
        dict(name="sgd", learning_rate=0.1, momentum=0.8),
        lambda o, p: o.SGD(p.values(), 0.1, momentum=0.8),
    ),
    "sgd nesterov, decay": (
        dict(name="sgd", learning_rate=0.1, momentum=0.8, nesterov=True, weight_decay=0.2),
        lambda o, p: o.SGD(p.values(), 0.1, momentum=0.8, nesterov=True, weight_decay=0.2),
    ),
    "sgd, decay of kernels": (
        dict(name="sgd", learning_rate=0.1, weight_decay=0.2, weight_decay_mask="kernels"),
        lambda o, p: o.SGD(decay_kernel_only(p, 0.2), 0.1),
    ),
    "adam": (
        dict(name="adam", **ADAM),
        lambda o, p: o.Adam(p.values(), **TORCH_ADAM),
    ),
    "adam, defaults": (
        dict(name="adam", learning_rate=0.03),
        lambda o, p: o.Adam(p.values(), lr=0.03),
    ),
    "adam, coupled decay": (
        dict(name="adam", weight_decay=0.2, **ADAM),
        lambda o, p: o.Adam(p.values(), weight_decay=0.2, **TORCH_ADAM),
    ),
    "adamw": (
        dict(name="adamw", weight_decay=0.2, **ADAM),
        lambda o, p: o.AdamW(p.values(), weight_decay=0.2, **TORCH_ADAM),
    ),
    "adamw, no decay": (
        dict(name="adamw", **ADAM),
        lambda o, p: o.AdamW(p.values(), weight_decay=0.0, **TORCH_ADAM),
    ),
    "adamw, decay of kernels": (
        dict(name="adamw", weight_decay=0.2, weight_decay_mask="kernels", **ADAM),
        lambda o, p: o.AdamW(decay_kernel_only(p, 0.2), **TORCH_ADAM),
    ),
}


@pytest.mark.parametrize("clip_norm", [0.0, 2.0])
@pytest.mark.parametrize("case", EQUAL)
def test_optimizer_equals_pytorch(case, clip_norm):
    options, create = EQUAL[case]
    theirs = train_torch(STEPS, create, clip_norm)
    ours = train_ours(STEPS, clip_norm=clip_norm, **options)
    for name in theirs:
        moved = np.abs(theirs[name] - PARAMS["dense"][name]).max()
        np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=1e-5 * moved)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_updates_are_proportional_to_the_learning_rate(name):
    """The train step multiplies all updates by the learning rate, including weight decay."""
    params, grads = (trained_by(name, jax.tree.map(jnp.asarray, t)) for t in (PARAMS, GRADS[0]))
    unit, scaled = (optim.create(name, rate, weight_decay=0.1) for rate in (1.0, 0.03))
    unit_updates, _ = unit.update(grads, unit.init(params), params)
    updates, _ = scaled.update(grads, scaled.init(params), params)
    expected = jax.tree.map(lambda x: 0.03 * x, unit_updates)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), updates, expected)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_optimizer_minimizes_a_quadratic_in_a_compiled_loop(name):
    """The loop also requires the state to keep its structure, shapes and dtypes."""
    optimizer = optim.create(name, clip_norm=1.0)
    target, start = jnp.array([[1.0, -2.0]]), jnp.zeros((1, 2))

    def step(i, carry):
        params, state = carry
        updates, state = optimizer.update(2 * (params - target), state, params)
        # The size of muon's updates is that of the learning rate, so it must fall.
        return optax.apply_updates(params, 0.05 * (1 - i / 300) * updates), state

    run = jax.jit(lambda carry: jax.lax.fori_loop(0, 300, step, carry))
    params, state = run((start, optimizer.init(start)))
    np.testing.assert_allclose(params, target, atol=0.01)
    assert all(jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(state))


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_weight_decay_shrinks_only_the_masked_weights(name):
    optimizer = optim.create(name, 0.1, weight_decay=0.1, weight_decay_mask="kernels")
    params = jax.tree.map(jnp.asarray, trained_by(name, PARAMS))
    updates, _ = optimizer.update(
        jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params
    )
    assert np.all(updates["dense"]["kernel"] * PARAMS["dense"]["kernel"] < 0)
    assert name == "muon" or not np.any(updates["dense"]["bias"])


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_the_learning_rate_can_be_a_schedule(name):
    schedule = optax.piecewise_constant_schedule(0.1, {3: 0.0})
    three, ten = (train_ours(n, name=name, learning_rate=schedule) for n in (3, 10))
    assert np.abs(three["kernel"] - PARAMS["dense"]["kernel"]).max() > 0.01
    np.testing.assert_array_equal(three["kernel"], ten["kernel"])


def test_kernels_selects_weights_of_convolutions_and_dense_layers():
    model = nnx.eval_shape(lambda: models.create("resnet18", 10, nnx.Rngs(0)))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    mask = masks.kernels(params)
    assert jax.tree.structure(mask) == jax.tree.structure(params)
    jax.tree.map(lambda is_kernel, p: np.testing.assert_equal(is_kernel, p.ndim > 1), mask, params)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(name="adamm"), "unknown optimizer 'adamm'; did you mean 'adam'"),
        (dict(weight_decay_mask="kernel"), "mask 'kernel'; did you mean 'kernels'"),
        (dict(weight_decay=-1e-4), r"optim.weight_decay must be .* got -0.0001"),
        (dict(clip_norm=-1.0), r"optim.clip_norm must be .* got -1"),
        (dict(nesterov=True), "optim.nesterov needs optim.momentum"),
        (dict(momentum=1.0), r"optim.momentum must be .* got 1.0"),
        (dict(name="adam", beta2=1.5), r"optim.beta2 must be .* got 1.5"),
        (dict(name="adam", eps=float("nan")), r"optim.eps must be .* got nan"),
        (
            dict(name="adam", momentum=0.9),
            "optim.momentum needs optim.name 'sgd' or 'muon', got 'adam'",
        ),
        (dict(name="adamw", nesterov=True), "needs optim.name 'sgd' or 'muon', got 'adamw'"),
        (dict(name="muon", nesterov=True), "optim.nesterov needs optim.momentum"),
        (dict(name="muon", momentum=1.0), r"optim.momentum must be .* got 1.0"),
        (dict(momentom=0.9), "unknown optimizer option 'momentom'; did you mean 'momentum'"),
    ],
)
def test_invalid_optimizer_option_is_rejected(options, match):
    with pytest.raises(UserError, match=match):
        optim.create(**(dict(name="sgd", learning_rate=0.1) | options))
