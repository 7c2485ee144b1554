import jax
import numpy as np
import pytest
import tiny

from cifar_jax import experiment
from cifar_jax.errors import UserError
from cifar_jax.experiment.parts import build_averaging

pytestmark = pytest.mark.usefixtures("library_convolutions")
# A network with running statistics, whose average counts too.
FIELDS = {"model": tiny.ConfigDict(tiny.SPLIT_NETWORK), "drop_last": True}


def create(**fields):
    cfg = experiment.checked(tiny.make_config(**FIELDS | fields))
    return experiment.create(cfg, tiny.dataset(), mesh=tiny.engine.make_mesh(jax.devices()[:1]))


def step_by_step(exp, after_each, num_steps):
    """Takes steps without an average; after_each(t, trees) returns what to continue from."""
    eng = exp.engine
    state, (params, stats) = eng.init(), (None, None)
    for t in range(1, num_steps + 1):
        plan = eng.plan(state, (t - 1) // eng.steps_per_epoch)
        state, _ = eng.run(state, eng.no_metrics(), plan, 1)
        params, stats = after_each(t, jax.device_get((state.params, state.batch_stats)))
        state = state.replace(params=jax.device_put(params), batch_stats=jax.device_put(stats))
    return state


def mixed(old, new, rate):
    return jax.tree.map(lambda a, b: (1 - rate) * np.float64(a) + rate * b, old, new)


def as_float32(tree):
    return jax.tree.map(np.float32, tree)


def test_ema_equals_the_formula_on_weights_and_statistics():
    plain, exp = create(), create(ema__decay=0.8)
    mean = jax.device_get(plain.engine.init().evaluated)

    def note(t, trees):
        nonlocal mean
        mean = mixed(mean, trees, 1 - min(0.8, (1 + t) / (10 + t)))
        return trees

    state = step_by_step(plain, note, 6)
    found, _ = tiny.run_steps(exp.engine, exp.engine.init(), 6)
    assert tiny.largest_difference(found.evaluated, mean) < 1e-5
    # The average does not affect training, and differs from its result.
    assert tiny.largest_difference(found.params, state.params) < 1e-6
    assert tiny.largest_difference(found.evaluated[0], state.params) > 1e-2
    assert found.evaluated[1]  # running statistics


def test_lookahead_equals_the_published_rule():
    """The slow weights of airbench96 decay by decay^every * (t / T)^3 after every few steps."""
    plain = create(num_epochs=3)
    exp = create(num_epochs=3, lookahead__every=2, lookahead__decay=0.9)
    total = 3 * plain.engine.steps_per_epoch
    slow = jax.device_get(plain.engine.init().evaluated)

    def pull_back(t, trees):
        nonlocal slow
        if t % 2:
            return trees
        slow = as_float32(mixed(slow, trees, 1 - 0.9**2 * (t / total) ** 3))
        return slow

    state = step_by_step(plain, pull_back, total)
    found, _ = tiny.run_steps(exp.engine, exp.engine.init(), total)
    # A run without lookahead ends at a distance of 0.02.
    assert tiny.distance(found.params, state.params) < 1e-4
    assert tiny.distance(found.batch_stats, state.batch_stats) < 1e-4
    # After the last step, which is odd here, the slow weights are evaluated.
    assert total % 2 == 1
    assert tiny.distance(found.evaluated, slow) < 1e-4
    assert tiny.largest_difference(found.evaluated[0], found.params) > 1e-3


@pytest.mark.parametrize("every", [0, 2])
def test_the_rates_are_arguments_of_the_program(every):
    fields = dict(lookahead__every=every) if every else dict(ema__decay=0.5)
    others = dict(lookahead__every=3) if every else dict(ema__decay=0.9)
    keys = [
        experiment.program_key(experiment.checked(tiny.make_config(**FIELDS | extra)))
        for extra in (fields, others, {})
    ]
    assert keys[0] == keys[1] != keys[2]


def test_the_average_starts_as_the_weights_and_decides_what_is_evaluated():
    exp = create(ema__decay=0.999)
    state = exp.engine.init()
    assert tiny.largest_difference(state.evaluated[0], state.params) == 0
    elsewhere = jax.tree.map(lambda x: x + 1, state.average)
    same = exp.evaluate["test"](state)[1]
    assert not np.array_equal(same, exp.evaluate["test"](state.replace(average=elsewhere))[1])
    params = jax.tree.map(lambda x: x + 1, state.params)
    np.testing.assert_array_equal(same, exp.evaluate["test"](state.replace(params=params))[1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ema__decay": 1.0}, r"ema.decay must be in \(0, 1\)"),
        ({"ema__decay": -0.1}, r"ema.decay must be in \(0, 1\)"),
        ({"lookahead__every": -1}, "lookahead.every must be 1 or more"),
        ({"lookahead__every": 5, "lookahead__decay": 1.0}, "lookahead.decay"),
        ({"lookahead__every": 5, "lookahead__power": -1.0}, "lookahead.power"),
        ({"lookahead__every": 5, "ema__decay": 0.9}, "only one"),
    ],
)
def test_values_out_of_range_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        build_averaging(tiny.make_config(**fields), 10)


def test_a_run_without_a_move_is_refused():
    """Three steps per epoch; the average would remain the network at step 0."""
    with pytest.raises(UserError, match="must be at most 6, the number of steps"):
        create(num_epochs=2, lookahead__every=7)
    exp = create(num_epochs=2, lookahead__every=6)
    config = experiment.checked(tiny.make_config(**FIELDS, num_epochs=1, lookahead__every=6))
    with pytest.raises(UserError, match="must be at most 3, the number of steps"):
        experiment.reused(exp, config)
