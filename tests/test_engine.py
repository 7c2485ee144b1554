from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from cifar_jax import data, engine, metrics, step
from cifar_jax.errors import UserError
from cifar_jax.runtime import compiler

# A small network with everything that could depend on the number of devices: BatchNorm and dropout,
# and augmentation, which `tiny.make_engine` adds.
NETWORK = ("vgg16", {"layers": (8, "B", "M", "D", 8, "B", "M", "A"), "dropout": 0.1})


@pytest.fixture(scope="module")
def ten_steps():
    """Returns the network's parameters, statistics and metrics after 10 steps on one device.

    The steps run in a jitted loop. Every other mode must give the same result. After more steps,
    rounding may change the sign of a ReLU's input or the position of a maximum, and the runs would
    diverge.
    """
    eng = tiny.make_engine(*NETWORK)
    state, epoch = tiny.run_steps(eng, eng.init(), 10)
    return jax.device_get((state.params, state.batch_stats)), metrics.fetch(epoch)


def test_step_by_step_equals_the_loop(ten_steps):
    arrays, values = ten_steps
    eng = tiny.make_engine(*NETWORK, loop=False)
    state, epoch = tiny.run_steps(eng, eng.init(), 10, steps_per_call=1)
    assert tiny.distance((state.params, state.batch_stats), arrays) < 1e-6
    assert metrics.fetch(epoch) == pytest.approx(values, rel=1e-5)


def test_eight_devices_equal_one(ten_steps):
    arrays, values = ten_steps
    eng = tiny.make_engine(*NETWORK, num_devices=8)
    state, epoch = tiny.run_steps(eng, eng.init(), 10)
    assert tiny.distance((state.params, state.batch_stats), arrays) < 1e-4
    assert metrics.fetch(epoch) == pytest.approx(values, rel=1e-3)


def test_pmap_without_batch_norm_and_randomness_equals_one_device():
    """Each replica has its own statistics and random numbers, so this test uses neither."""
    setup = dict(options={"dropout": 0.0}, ops="alternating_flip")
    engines = (
        tiny.make_engine(**setup),
        tiny.make_engine(**setup, num_devices=8, parallel="pmap"),
    )
    ran = [(eng, *tiny.run_steps(eng, eng.init(), 10)) for eng in engines]
    one, many = ((eng.snapshot(state).params, eng.snapshot(epoch)) for eng, state, epoch in ran)
    assert tiny.distance(many[0], one[0]) < 1e-4
    assert metrics.fetch(many[1]) == pytest.approx(metrics.fetch(one[1]), rel=1e-3)


def test_pmap_replicas_draw_independently():
    """With identical images, replicas with the same dropout masks would have the same loss."""
    train = tiny.dataset().train
    same = data.Split(np.repeat(train.images[:1], 100, 0), np.repeat(train.labels[:1], 100, 0))
    losses = []
    for num_devices in (1, 2):
        eng = tiny.make_engine(
            train=same, ops="", num_devices=num_devices, parallel="pmap", batch_size=num_devices
        )
        _, epoch = tiny.run_steps(eng, eng.init(), 1)
        losses.append(metrics.fetch(eng.snapshot(epoch))["loss"])
    assert losses[0] != losses[1]


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_steps_use_the_learning_rates_of_the_schedule(parallel):
    """Compares with a schedule inside the optimizer, across the end of an epoch of 7 steps."""

    def schedule(step):
        return 0.01 / (1.0 + step)

    setup = dict(num_devices=2, parallel=parallel)
    eng = tiny.make_engine(optimizer=optax.sgd(1.0, 0.9), schedule=schedule, **setup)
    reference = tiny.make_engine(optimizer=optax.sgd(schedule, 0.9), **setup)
    state, wanted = (tiny.run_steps(e, e.init(), 10)[0] for e in (eng, reference))
    assert tiny.distance(eng.snapshot(state).params, eng.snapshot(wanted).params) < 1e-6


def test_learning_rates_and_seed_are_arguments_of_the_program(monkeypatch):
    programs = []
    monkeypatch.setattr(engine, "compile_for_backend", lambda x, _: programs.append(x.as_text()))
    monkeypatch.setattr(engine, "_program_bytes", lambda program: 0)
    for seed, rate in ((0, 0.1), (1, 0.2)):
        tiny.make_engine(seed=seed, schedule=lambda step, rate=rate: rate)
    tiny.make_engine(ops="flip")
    assert programs[0] == programs[1] != programs[2]


@pytest.mark.usefixtures("untrained")
def test_different_seeds_give_different_parameters():
    first, second = (tiny.make_engine(seed=seed).init().params for seed in (0, 2**32 - 1))
    assert tiny.distance(first, second) > 0.1


def test_pmap_averages_the_gradients_of_the_replicas():
    """With SGD at a learning rate of 1, the update is the gradient of each replica's 8 images."""
    layers = (8, "B", "M", 8, "B", "M", "A")
    setup = dict(options={"layers": layers}, optimizer=optax.sgd(1.0), ops="")
    eng = tiny.make_engine("vgg16", num_devices=2, parallel="pmap", **setup)
    state = eng.init()
    start = jax.device_get(eng.snapshot(state))
    order = np.asarray(eng.plan(state, 0).order)  # [2, steps, 8]
    state, _ = eng.run(state, eng.no_metrics(), eng.plan(state, 0), 1)
    end = jax.device_get(eng.snapshot(state))

    # Engines for one device, whose whole training set is the batch of one replica.
    train = tiny.dataset().train
    ends = []
    for replica in range(2):
        part = data.Split(*(x[order[replica, 0]] for x in train))
        single = tiny.make_engine("vgg16", train=part, batch_size=8, **setup)
        one, _ = single.run(single.init(), single.no_metrics(), single.plan(single.init(), 0), 1)
        ends.append(jax.device_get(one))
    for part in ("params", "batch_stats"):
        mean = jax.tree.map(lambda a, b: (a + b) / 2, *(getattr(e, part) for e in ends))
        moved = jax.tree.map(np.subtract, getattr(end, part), getattr(start, part))
        wanted = jax.tree.map(np.subtract, mean, getattr(start, part))
        assert tiny.largest_difference(moved, wanted) < 1e-4, part
    # The replicas had different statistics, so a global batch would have given a different result.
    assert tiny.largest_difference(ends[0].batch_stats, ends[1].batch_stats) > 1e-3


@pytest.mark.parametrize(
    ("batch_size", "num_devices", "message"),
    [
        (12, 8, "nearest valid value is 8 or 16"),
        (5, 8, "nearest valid value is 8"),
        (101, 1, "1 to 100, the number of training images, got 101"),
        (0, 1, "got 0"),
    ],
)
def test_invalid_batch_sizes_are_refused(batch_size, num_devices, message):
    with pytest.raises(UserError, match=message):
        engine.count_steps(batch_size, 100, num_devices)


def test_unknown_parallel_is_refused():
    with pytest.raises(UserError, match="did you mean 'pmap'"):
        tiny.make_engine(parallel="pmpa")


def test_an_epoch_visits_every_example_once():
    images = np.zeros((100, 1, 1, 1), np.uint8)
    labels = np.arange(100, dtype=np.int32)
    key = jax.random.key(3)
    orders = [step.epoch_order(key, epoch, 100, 16) for epoch in (0, 1)]
    assert orders[0].shape == (7, 16)
    counted = []
    for i in range(7):
        batch = engine.gather(images, labels, orders[0], 7 + i, 100)
        counted += [int(x) for x, w in zip(batch.labels, batch.weights) if w]
    assert sorted(counted) == list(range(100))
    assert not np.array_equal(orders[0], orders[1])
    # The last batch is padded with real images, which have weight 0.
    assert batch.weights.sum() == batch.num_counting == 100 - 6 * 16
    assert np.array_equal(batch.labels[4:], orders[0][0, :12])


def test_replicas_gather_the_same_batch_as_one_device():
    train = tiny.dataset().train
    order = step.epoch_order(jax.random.key(0), 0, 100, 16)
    whole = engine.gather(*train, order, 6, 100)
    for replica in range(4):
        part = engine.gather(
            *train, order[:, 4 * replica : 4 * replica + 4], 6, 100, 4 * replica, 4
        )
        for a, b in zip(part, whole):
            np.testing.assert_array_equal(a, b[4 * replica : 4 * replica + 4] if b.ndim else b)


def test_a_batch_holds_the_indices_and_epoch_of_its_images():
    images, labels = (jnp.arange(10, dtype=jnp.int32) for _ in range(2))
    order = engine.epoch_order(jax.random.key(0), 0, 10, 4)
    for at, epoch in ((1, 0), (4, 1), (8, 2)):
        batch = engine.gather(images, labels, order, jnp.int32(at), 10)
        np.testing.assert_array_equal(batch.indices, batch.images)
        np.testing.assert_array_equal(batch.epochs, np.full(4, epoch))


def test_alternating_flips_and_mixes_give_the_same_loss_on_one_and_eight_devices():
    losses = []
    for num_devices in (1, 8):
        eng = tiny.make_engine(
            "cnn_small", ops="alternating_flip", mix="cutmix(1.0)", num_devices=num_devices
        )
        _, epoch = tiny.run_steps(eng, eng.init(), 2 * eng.steps_per_epoch)
        losses.append(metrics.fetch(epoch)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
    ("name", "options"),
    # A block without and one with strides: 3x3 kernels with both, and strided 1x1 kernels.
    [("cnn_small", {}), ("resnet18", {"width": 16, "depths": (1, 1)})],
)
def test_a_step_as_shipped_equals_one_without_the_forms_for_cpus(name, options, monkeypatch):
    """The reference runs lax's convolutions and products on the CPU, as a GPU would."""
    setup = dict(options=options, optimizer=optax.sgd(1.0), batch_size=4, ops="")
    eng = tiny.make_engine(name, **setup)
    start, (ours, _) = jax.device_get((eng.init(), tiny.run_steps(eng, eng.init(), 1)))

    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    monkeypatch.delitem(compiler._CPU_OPTIONS, "xla_backend_optimization_level")
    eng = tiny.make_engine(name, **setup, loop=False)
    expected, _ = jax.device_get(tiny.run_steps(eng, eng.init(), 1))

    # The distances are about 3e-6, but the gradient jumps if rounding changes the sign of a ReLU's
    # input.
    for part, tolerance in (("params", 1e-2), ("batch_stats", 1e-5)):
        moved = [
            jax.tree.map(np.subtract, getattr(end, part), getattr(start, part))
            for end in (ours, expected)
        ]
        if moved[0]:
            assert tiny.distance(*moved) < tolerance, part


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_drop_last_leaves_out_the_incomplete_batch(parallel):
    eng = tiny.make_engine(num_devices=2, parallel=parallel, drop_last=True)  # 100 images of 16
    state = eng.init()
    assert (eng.steps_per_epoch, eng.examples_per_epoch) == (6, 96)
    orders = [np.ravel(eng.plan(state, epoch).order) for epoch in (0, 1)]
    for order in orders:
        assert len(order) == len(set(order.tolist())) == 96
    assert set(orders[0].tolist()) != set(orders[1].tolist())
    _, epoch = tiny.run_steps(eng, state, 6)
    assert np.ravel(epoch.sums)[3] == 96
    assert tiny.make_engine().examples_per_epoch == 100


@pytest.mark.parametrize("parallel", ["jit", "pmap"])
def test_later_epochs_use_the_programs_of_their_own(parallel):
    """Epoch 0 runs the first step, epochs 1 and 2 the second, and epoch 3 the third."""

    def counting(amount):
        def make_train_step(axis_name):
            def train_step(state, batch, learning_rate):
                state = state.replace(step=state.step + 1, params=state.params + amount)
                return state, metrics.Metrics.empty()

            return train_step

        return make_train_step

    def init(seed):
        key = jax.random.key(seed)
        return step.TrainState(jnp.int32(0), jnp.zeros(()), {}, (), key, jnp.float32(1))

    eng = engine.create(
        counting(1.0),
        init,
        *tiny.dataset().train,
        batch_size=50,
        parallel=parallel,
        mesh=engine.make_mesh(jax.devices()[:2]),
        later={1: counting(10.0), 3: counting(100.0)},
    )
    state, found = eng.init(), []
    for _ in range(4):
        state, _ = tiny.run_steps(eng, state, eng.steps_per_epoch)
        found.append(float(eng.snapshot(state).params))
    assert found == [2, 22, 42, 242]


@pytest.mark.parametrize(
    ("drop_last", "schedule"), [(False, None), (True, lambda step: step * np.float32([1, 2, 3]))]
)
def test_a_lowered_program_takes_the_arguments_of_the_engine(drop_last, schedule):
    def make_train_step(axis_name):
        def train_step(state, batch, learning_rate):
            state = state.replace(step=state.step + 1, lr_scale=jnp.sum(learning_rate))
            return state, metrics.Metrics.empty()

        return train_step

    def init(seed):
        return step.TrainState(jnp.int32(0), {}, {}, (), jax.random.key(seed), jnp.ones(()))

    train, mesh = tiny.dataset().train, engine.make_mesh(jax.devices()[:1])
    options = dict(batch_size=16, mesh=mesh, schedule=schedule, drop_last=drop_last)
    eng = engine.create(make_train_step, init, train.images, train.labels, **options)
    lowered = engine.lower(make_train_step, init, num_examples=100, **options)

    def shapes(program):
        return jax.tree.map(lambda x: (x.shape, x.dtype), program.args_info)

    assert shapes(lowered) == shapes(eng._programs[0])
    order, rates = lowered.args_info[0][3][:2]
    assert order.shape == ((6, 16) if drop_last else (7, 16))
    assert rates.shape == order.shape[:1] + (() if schedule is None else (3,))


def test_the_size_of_a_program_counts_donated_arguments_once():
    sizes = SimpleNamespace(
        argument_size_in_bytes=1000,
        output_size_in_bytes=100,
        alias_size_in_bytes=90,
        temp_size_in_bytes=10_000,
    )
    program = SimpleNamespace(memory_analysis=lambda: sizes)
    assert engine._program_bytes(program) == 11_010
    assert engine._program_bytes(SimpleNamespace(memory_analysis=lambda: None)) is None
