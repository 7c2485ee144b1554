import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cifar_jax import models, optim
from cifar_jax.errors import UserError
from cifar_jax.optim import schedules

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


def train_ours(steps, **options):
    optimizer = optim.create(**options)
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = optimizer.init(params)
    update = jax.jit(optimizer.update)
    for grads in GRADS[:steps]:
        updates, state = update(grads, state, params)
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
def test_learning_rate_may_be_a_schedule(name):
    schedule = optax.piecewise_constant_schedule(0.1, {3: 0.0})
    three, ten = (train_ours(n, name=name, learning_rate=schedule) for n in (3, 10))
    assert np.abs(three["kernel"] - PARAMS["dense"]["kernel"]).max() > 0.01
    np.testing.assert_array_equal(three["kernel"], ten["kernel"])


def test_kernels_selects_weights_of_convolutions_and_dense_layers():
    model = nnx.eval_shape(lambda: models.create("resnet18", 10, nnx.Rngs(0)))
    params = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    mask = optim.kernels(params)
    assert jax.tree.structure(mask) == jax.tree.structure(params)
    jax.tree.map(lambda is_kernel, p: np.testing.assert_equal(is_kernel, p.ndim > 1), mask, params)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(name="adamm"), "unknown optimizer 'adamm': did you mean 'adam'"),
        (dict(weight_decay_mask="kernel"), "mask 'kernel': did you mean 'kernels'"),
        (dict(weight_decay=-1e-4), r"optim.weight_decay needs .* not -0.0001"),
        (dict(clip_norm=-1.0), r"optim.clip_norm needs .* not -1"),
        (dict(nesterov=True), "optim.nesterov needs optim.momentum"),
        (dict(momentum=1.0), r"optim.momentum needs .* not 1.0"),
        (dict(name="adam", beta2=1.5), r"optim.beta2 needs .* not 1.5"),
        (dict(name="adam", eps=float("nan")), r"optim.eps needs .* not nan"),
        (dict(name="adam", momentum=0.9), "optim.momentum is sgd's; adam has optim.beta1"),
    ],
)
def test_invalid_optimizer_option_is_rejected(options, match):
    with pytest.raises(UserError, match=match):
        optim.create(**(dict(name="sgd", learning_rate=0.1) | options))


STEPS_PER_EPOCH, NUM_EPOCHS, PEAK = 10, 100, 0.4
TOTAL = STEPS_PER_EPOCH * NUM_EPOCHS


def rates(name, **options):
    """Returns the suite's learning rates at 1,000 steps."""
    schedule = schedules.create(
        name, PEAK, steps_per_epoch=STEPS_PER_EPOCH, num_epochs=NUM_EPOCHS, **options
    )
    return np.array(jax.vmap(schedule)(jnp.arange(TOTAL)))


def torch_rates(create, steps=TOTAL):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], PEAK)
    scheduler = create(torch.optim.lr_scheduler, optimizer)
    result = []
    for _ in range(steps):
        result.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.array(result)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (dict(name="constant"), lambda s, o: s.ConstantLR(o, 1.0)),
        (
            dict(name="step", step_epochs=(30, 60, 90)),
            lambda s, o: s.StepLR(o, 300, gamma=0.1),
        ),
        (
            dict(name="step", step_epochs=(25, 37.5, 80), step_factor=0.2),
            lambda s, o: s.MultiStepLR(o, [250, 375, 800], gamma=0.2),
        ),
        (
            dict(name="cosine"),
            lambda s, o: s.CosineAnnealingLR(o, TOTAL),
        ),
        (
            dict(name="cosine", final_learning_rate=0.01),
            lambda s, o: s.CosineAnnealingLR(o, TOTAL, eta_min=0.01),
        ),
        (
            dict(name="inverse_time", decay=0.05),
            lambda s, o: s.LambdaLR(o, lambda step: 1 / (1 + 0.05 * step)),
        ),
        (
            dict(name="polynomial", power=2.0),
            lambda s, o: s.PolynomialLR(o, TOTAL, power=2.0),
        ),
        (
            dict(name="one_cycle", base_learning_rate=PEAK / 25, final_learning_rate=PEAK / 2.5e5),
            lambda s, o: s.OneCycleLR(o, PEAK, TOTAL),
        ),
        (
            dict(name="one_cycle", base_learning_rate=0.1, final_learning_rate=0.01, rise=0.45),
            lambda s, o: s.OneCycleLR(
                o, PEAK, TOTAL, pct_start=0.45, div_factor=4, final_div_factor=10
            ),
        ),
        (
            dict(name="triangular", base_learning_rate=0.1, half_cycle_epochs=7),
            lambda s, o: s.CyclicLR(o, 0.1, PEAK, 70, cycle_momentum=False),
        ),
        (
            dict(name="triangular2", base_learning_rate=0.1, half_cycle_epochs=4.5),
            lambda s, o: s.CyclicLR(o, 0.1, PEAK, 45, mode="triangular2", cycle_momentum=False),
        ),
        (
            dict(name="exp_range", base_learning_rate=0.1, half_cycle_epochs=6, cycle_factor=0.997),
            lambda s, o: s.CyclicLR(
                o, 0.1, PEAK, 60, mode="exp_range", gamma=0.997, cycle_momentum=False
            ),
        ),
        (
            dict(name="exponential", step_factor=0.9),
            lambda s, o: s.StepLR(o, STEPS_PER_EPOCH, gamma=0.9),
        ),
    ],
)
def test_schedule_equals_pytorch(ours, theirs):
    np.testing.assert_allclose(rates(**ours), torch_rates(theirs), atol=2e-6 * PEAK)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (dict(name="constant"), lambda s, o: s.ConstantLR(o, 1.0)),
        # Steps are counted from the start of training, the cosine from the end of the warm-up.
        (
            dict(name="step", step_epochs=(30, 60)),
            lambda s, o: s.MultiStepLR(o, [250, 550], gamma=0.1),
        ),
        (dict(name="cosine"), lambda s, o: s.CosineAnnealingLR(o, TOTAL - 50)),
    ],
)
def test_warmup_rises_from_zero_to_the_initial_rate(ours, theirs):
    warm = rates(warmup_epochs=5, **ours)
    np.testing.assert_allclose(warm[:50], PEAK * np.arange(50) / 50, atol=1e-6 * PEAK)
    np.testing.assert_allclose(warm[50:], torch_rates(theirs, TOTAL - 50), atol=1e-6 * PEAK)


@pytest.mark.parametrize("name", ["one_cycle", *schedules.CYCLICAL])
def test_warmup_of_cyclical_schedules_ends_at_the_base_rate(name):
    warm = rates(name, warmup_epochs=5, base_learning_rate=0.01, half_cycle_epochs=4)
    np.testing.assert_allclose(warm[:51], 0.01 * np.arange(51) / 50, atol=1e-7)
    assert warm[51] > 0.01


def test_two_drops_at_the_same_step_are_both_applied():
    schedule = schedules.create(
        "step", 1.0, steps_per_epoch=3, num_epochs=4, step_epochs=(1.0, 1.04)
    )
    np.testing.assert_allclose([schedule(2), schedule(3)], [1.0, 0.01], rtol=1e-6)


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_depends_on_length_matches_the_schedules(name):
    short, long = (
        schedules.create(
            name,
            PEAK,
            steps_per_epoch=10,
            num_epochs=n,
            step_epochs=(5,),
            base_learning_rate=0.1,
            half_cycle_epochs=3,
        )
        for n in (10, 20)
    )
    differs = any(short(step) != long(step) for step in range(0, 100, 9))
    assert schedules.depends_on_length(name) == differs


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(name="cosin"), "unknown schedule 'cosin': did you mean 'cosine'"),
        (dict(learning_rate=float("nan")), r"optim.learning_rate needs .* not nan"),
        (dict(final_learning_rate=0.2), r"optim.final_learning_rate needs .* not 0.2"),
        (dict(), "needs optim.step_epochs"),
        (
            dict(name="constant", num_epochs=1, warmup_epochs=0.99),
            "leaves no step after the warm-up: training has 10",
        ),
        (dict(learning_rate=0.0), r"optim.learning_rate needs .* not 0.0"),
        (dict(warmup_epochs=-1), r"optim.warmup_epochs needs .* not -1"),
        (dict(warmup_epochs=10), r"less than num_epochs = 10, not 10"),
        (dict(step_epochs="abc"), r"optim.step_epochs need to be numbers, not 'abc'"),
        (dict(step_epochs=(4, 2)), r"optim.step_epochs need to increase .* not \(4, 2\)"),
        (dict(step_epochs=(4, 4)), r"optim.step_epochs need to increase .* not \(4, 4\)"),
        (dict(step_epochs=(0, 4)), r"optim.step_epochs need to increase .* not \(0, 4\)"),
        (dict(step_epochs=(2, 4), warmup_epochs=3), r"after the warm-up of 3 epochs"),
        (dict(step_epochs=(2,), step_factor=0.0), r"optim.step_factor needs .* not 0.0"),
        (dict(name="inverse_time", decay=-1), r"optim.decay needs .* not -1"),
        (
            dict(name="cosine", decay=0.1),
            "optim.decay needs optim.schedule 'inverse_time', not 'cosine'",
        ),
        (dict(name="polynomial", power=0.0), r"optim.power needs .* not 0.0"),
        (dict(name="one_cycle", base_learning_rate=0.1, rise=1.0), r"optim.rise needs .* not 1.0"),
        (
            dict(name="triangular", half_cycle_epochs=2, warmup_epochs=1),
            "needs optim.base_learning_rate above 0 with the schedule 'triangular'",
        ),
        (dict(name="one_cycle"), "'one_cycle' needs optim.base_learning_rate above 0"),
        (dict(name="triangular"), "'triangular' needs optim.half_cycle_epochs above 0"),
        (dict(name="triangular", base_learning_rate=0.2), r"optim.base_learning_rate .* not 0.2"),
        (dict(name="exp_range", cycle_factor=1.1), r"optim.cycle_factor needs .* not 1.1"),
    ],
)
def test_invalid_schedule_option_is_rejected(options, match):
    valid = dict(name="step", learning_rate=0.1, steps_per_epoch=10, num_epochs=10)
    with pytest.raises(UserError, match=match):
        schedules.create(**(valid | options))
