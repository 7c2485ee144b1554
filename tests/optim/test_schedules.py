import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cifar_jax.errors import UserError
from cifar_jax.optim import pick, schedules

STEPS_PER_EPOCH, NUM_EPOCHS, PEAK = 10, 100, 0.4
TOTAL = STEPS_PER_EPOCH * NUM_EPOCHS


def learning_rates(name, **options):
    """Returns the suite's learning rates at 1,000 steps."""
    schedule = schedules.create(
        name, PEAK, steps_per_epoch=STEPS_PER_EPOCH, num_epochs=NUM_EPOCHS, **options
    )
    return np.array(jax.vmap(schedule)(jnp.arange(TOTAL)))


def torch_learning_rates(create, steps=TOTAL):
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
            dict(
                name="linear_one_cycle",
                base_learning_rate=0.2 * PEAK,
                final_learning_rate=0.07 * PEAK,
                rise=0.23,
            ),
            lambda s, o: s.LambdaLR(o, lambda t: np.interp(t, [0, 230, TOTAL], [0.2, 1, 0.07])),
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
    np.testing.assert_allclose(
        learning_rates(**ours), torch_learning_rates(theirs), atol=2e-6 * PEAK
    )


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (dict(name="constant"), lambda s, o: s.ConstantLR(o, 1.0)),
        # step_epochs count from the start of training, the cosine from the end of the warm-up.
        (
            dict(name="step", step_epochs=(30, 60)),
            lambda s, o: s.MultiStepLR(o, [250, 550], gamma=0.1),
        ),
        (dict(name="cosine"), lambda s, o: s.CosineAnnealingLR(o, TOTAL - 50)),
    ],
)
def test_warmup_rises_from_zero_to_the_initial_learning_rate(ours, theirs):
    warm = learning_rates(warmup_epochs=5, **ours)
    np.testing.assert_allclose(warm[:50], PEAK * np.arange(50) / 50, atol=1e-6 * PEAK)
    np.testing.assert_allclose(
        warm[50:], torch_learning_rates(theirs, TOTAL - 50), atol=1e-6 * PEAK
    )


# Values of all fields, so that every schedule changes the learning rate within a few epochs.
OPTIONS = dict(
    base_learning_rate=0.1,
    final_learning_rate=0.01,
    step_epochs=(2, 4.5),
    step_factor=0.5,
    decay=0.05,
    power=2.0,
    half_cycle_epochs=1.3,
    cycle_factor=0.99,
)
every_schedule = pytest.mark.parametrize("name", schedules.SCHEDULES)


def create(name, steps_per_epoch, num_epochs, warmup_epochs=0.0):
    return schedules.create(
        name,
        PEAK,
        steps_per_epoch=steps_per_epoch,
        num_epochs=num_epochs,
        warmup_epochs=warmup_epochs,
        **pick(OPTIONS, schedules.SCHEDULES[name]),
    )


@every_schedule
@pytest.mark.parametrize("warmup_epochs", [0.0, 1.5])
def test_learning_rates_are_finite_and_lie_between_zero_and_the_peak(name, warmup_epochs):
    schedule = create(name, 20, 6, warmup_epochs)
    # 200 steps go beyond the end of training.
    result = jax.jit(jax.vmap(schedule))(jnp.arange(200, dtype=jnp.int32))
    assert result.shape == (200,) and result.dtype == jnp.float32
    assert jnp.all((result >= 0) & (result <= PEAK * (1 + 1e-6)))  # False for NaN


# Every number of steps per epoch that batch sizes of 16 or more can give for 50,000 images.
LENGTHS = np.arange(1, 3201, dtype=np.int32)


def cyclical(amplitude):
    """Returns the formula of Smith (2017) in float64, with the half cycle of OPTIONS."""
    base = OPTIONS["base_learning_rate"]

    def learning_rate(step):
        half = OPTIONS["half_cycle_epochs"] * LENGTHS
        cycle = np.floor(step / (2 * half))
        height = 1 - np.abs(step / half - 2 * cycle - 1)
        return base + (PEAK - base) * height * amplitude(cycle, step)

    return learning_rate


# The float64 formulas of the schedules with jumps or kinks, for all LENGTHS at once.
EXPECTED = {
    "step": lambda step: (
        PEAK * 0.5 ** ((step >= 2 * LENGTHS) + 1.0 * (step >= np.rint(4.5 * LENGTHS)))
    ),
    "exponential": lambda step: PEAK * 0.5 ** (step // LENGTHS),
    "triangular": cyclical(lambda cycle, step: 1.0),
    "triangular2": cyclical(lambda cycle, step: 0.5**cycle),
    "exp_range": cyclical(lambda cycle, step: 0.99**step),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_compiled_schedule_changes_at_the_right_step_for_every_length(name):
    """XLA turns a division by a constant (here, all lengths) into a product with its inverse.

    The floor of that product is one too low at the first step of an epoch for 41, 47, 55, 61 and
    other numbers of steps.
    """
    epochs = np.array([[1], [2], [3], [4.5], [7], [13]])
    edges = np.rint(epochs * LENGTHS).astype(np.int32)
    steps = np.concatenate([edges - 1, edges, edges + 1])
    function = schedules.SCHEDULES[name]
    schedule = function(PEAK, **pick(OPTIONS | {"steps_per_epoch": LENGTHS}, function))
    found = jax.jit(schedule)(steps)
    np.testing.assert_allclose(found, EXPECTED[name](steps.astype(np.int64)), atol=2e-5 * PEAK)


def test_compiled_warm_up_ends_at_the_right_step_for_every_length():
    ends = np.rint(1.5 * LENGTHS).astype(np.int32)
    schedule = schedules.exponential(PEAK, steps_per_epoch=LENGTHS, step_factor=0.5)
    steps = np.stack([ends // 2, ends - 1, ends, ends + LENGTHS - 1, ends + LENGTHS])
    found = jax.jit(schedules._warmed_up(schedule, PEAK, ends))(steps)
    expected = [(ends // 2) / ends, (ends - 1) / ends, *np.ones((2, 3200)), np.full(3200, 0.5)]
    np.testing.assert_allclose(found, PEAK * np.array(expected), atol=1e-6 * PEAK)


@every_schedule
def test_warmup_precedes_any_schedule(name):
    """Steps are Python integers here, as when training logs the learning rate."""
    warm = create(name, 20, 6, warmup_epochs=1.5)
    function = schedules.SCHEDULES[name]
    options = OPTIONS | dict(steps_per_epoch=20, num_steps=90, warmup_epochs=1.5)
    schedule = function(PEAK, **pick(options, function))
    ramp = float(schedule(0)) * np.arange(30) / 30
    expected = [*ramp, *(float(schedule(step)) for step in range(90))]
    found = [float(warm(step)) for step in range(120)]
    np.testing.assert_allclose(found, expected, atol=1e-6 * PEAK)


def test_two_drops_at_the_same_step_are_both_applied():
    schedule = schedules.create(
        "step", 1.0, steps_per_epoch=3, num_epochs=4, step_epochs=(1.0, 1.04)
    )
    np.testing.assert_allclose([schedule(2), schedule(3)], [1.0, 0.01], rtol=1e-6)


@every_schedule
def test_depends_on_length_matches_the_schedules(name):
    short, long = (create(name, 10, num_epochs) for num_epochs in (10, 20))
    differs = any(short(step) != long(step) for step in range(0, 100, 9))
    assert schedules.depends_on_length(name) == differs


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(name="cosin"), "unknown schedule 'cosin'; did you mean 'cosine'"),
        (dict(learning_rate=float("nan")), r"optim.learning_rate must be .* got nan"),
        (dict(learning_rate=1e39), r"optim.learning_rate must be .* got 1e\+39"),
        (dict(learning_rate=1e-46), r"optim.learning_rate must be above 0, got 1e-46"),
        (dict(learning_rate="0.1"), r"optim.learning_rate must be a number, got '0.1'"),
        (dict(step_epochs=(2, float("nan"))), r"optim.step_epochs must be a list of numbers"),
        (dict(name="inverse_time", decay=float("inf")), r"optim.decay must be .* got inf"),
        (dict(name="cosine", final_learning_rate="0"), r"must be a number, got '0'"),
        (dict(num_epochs=2, warmup_epochs=5), "got 5; for a short trial"),
        (
            dict(name="cosine", final_learning_rate=0.2),
            "optim.final_learning_rate must be between 0 and optim.learning_rate, got 0.2",
        ),
        (dict(), "needs optim.step_epochs"),
        (
            dict(name="constant", num_epochs=1, warmup_epochs=0.99),
            "leaves no step after the warm-up: training has 10 steps",
        ),
        (dict(learning_rate=0.0), r"optim.learning_rate must be .* got 0.0"),
        (dict(warmup_epochs=-1), r"optim.warmup_epochs must be .* got -1"),
        (dict(warmup_epochs=10), r"less than num_epochs = 10, got 10"),
        (dict(step_epochs="abc"), r"optim.step_epochs must be a list of numbers, .*got 'abc'"),
        (dict(step_epochs=(4, 2)), r"optim.step_epochs must be .* increasing, got \(4, 2\)"),
        (dict(step_epochs=(4, 4)), r"optim.step_epochs must be .* increasing, got \(4, 4\)"),
        (dict(step_epochs=(0, 4)), r"optim.step_epochs must be .* increasing, got \(0, 4\)"),
        (dict(step_epochs=(2, 4), warmup_epochs=3), r"after the warm-up of 3 epochs"),
        (dict(step_epochs=(2,), step_factor=0.0), r"optim.step_factor must be .* got 0.0"),
        (dict(name="inverse_time", decay=-1), r"optim.decay must be .* got -1"),
        (
            dict(name="cosine", decay=0.1),
            "optim.decay needs optim.schedule 'inverse_time', got 'cosine'",
        ),
        (dict(name="polynomial", power=0.0), r"optim.power must be .* got 0.0"),
        (dict(name="one_cycle", base_learning_rate=0.1, rise=1.0), "optim.rise must be .* got 1.0"),
        (
            dict(name="triangular", half_cycle_epochs=2, warmup_epochs=1),
            "needs optim.base_learning_rate above 0 with the schedule 'triangular'",
        ),
        (
            dict(name="triangular", half_cycle_epochs=1e-46),
            "optim.half_cycle_epochs must be at least one step long, got 1e-46",
        ),
        (dict(name="one_cycle", base_learning_rate=1e-46), "base_learning_rate above 0"),
        (dict(name="linear_one_cycle", rise=0), "optim.rise must be .* got 0"),
        (dict(name="one_cycle"), "'one_cycle' needs optim.base_learning_rate above 0"),
        (dict(name="triangular"), "'triangular' needs optim.half_cycle_epochs above 0"),
        (
            dict(name="triangular", half_cycle_epochs=2, base_learning_rate=0.2),
            r"optim.base_learning_rate .* got 0.2",
        ),
        (dict(name="cosine", ris=0.2), "unknown schedule option 'ris'; did you mean 'rise'"),
        (dict(name="exp_range", cycle_factor=1.1), r"optim.cycle_factor must be .* got 1.1"),
    ],
)
def test_invalid_schedule_option_is_rejected(options, match):
    valid = dict(name="step", learning_rate=0.1, steps_per_epoch=10, num_epochs=10)
    with pytest.raises(UserError, match=match):
        schedules.create(**(valid | options))
