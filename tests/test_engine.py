import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from cifar_jax import data, engine, metrics, step
from cifar_jax.errors import UserError

# Thin, but with what differs between devices: dropout, augmentation, BatchNorm.
NETWORKS = {"cnn3": ("cnn3", {}), "thin resnet": ("resnet18", {"width": 8, "depths": (1, 1)})}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    """10 steps on one device, by jit and in a loop: what every other way must equal.

    After more, rounding alone may tip a rectifier or a maximum over, and the runs part.
    """
    name, options = NETWORKS[request.param]
    eng = tiny.make_engine(name, options)
    state, epoch = tiny.run_steps(eng, eng.init(), 10)
    return name, options, jax.device_get(state.params), metrics.fetch(epoch)


def test_step_by_step_equals_the_loop(network):
    name, options, params, values = network
    eng = tiny.make_engine(name, options, loop=False)
    state, epoch = tiny.run_steps(eng, eng.init(), 10, steps_per_call=1)
    assert tiny.distance(state.params, params) < 1e-6
    assert metrics.fetch(epoch) == pytest.approx(values, rel=1e-5)


def test_eight_devices_equal_one(network):
    name, options, params, values = network
    eng = tiny.make_engine(name, options, num_devices=8)
    state, epoch = tiny.run_steps(eng, eng.init(), 10)
    assert tiny.distance(state.params, params) < 1e-4
    assert metrics.fetch(epoch) == pytest.approx(values, rel=1e-3)


def test_pmap_without_batch_norm_and_draws_equals_one_device():
    """Statistics and draws are each replica's own: dropout, crops and flips."""
    setup = dict(options={"dropout": 0.0}, ops="alternating_flip")
    engines = (
        tiny.make_engine(**setup),
        tiny.make_engine(**setup, num_devices=8, parallel="pmap"),
    )
    ran = [(eng, *tiny.run_steps(eng, eng.init(), 10)) for eng in engines]
    one, many = ((eng.snapshot(state).params, eng.snapshot(epoch)) for eng, state, epoch in ran)
    assert tiny.distance(many[0], one[0]) < 1e-4
    assert metrics.fetch(many[1]) == pytest.approx(metrics.fetch(one[1]), rel=1e-3)


def test_pmap_replicas_draw_by_themselves():
    """All images alike, and dropout: replicas that drew alike would have the same loss."""
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
def test_steps_take_the_rates_of_the_schedule(parallel):
    """As with a schedule inside the optimizer, over the border of an epoch of 7 steps."""

    def schedule(step):
        return 0.01 / (1.0 + step)

    setup = dict(name="cnn_small", num_devices=2, parallel=parallel)
    eng = tiny.make_engine(optimizer=optax.sgd(1.0, 0.9), schedule=schedule, **setup)
    reference = tiny.make_engine(optimizer=optax.sgd(schedule, 0.9), **setup)
    state, wanted = (tiny.run_steps(e, e.init(), 10)[0] for e in (eng, reference))
    assert tiny.distance(eng.snapshot(state).params, eng.snapshot(wanted).params) < 1e-6


def test_rates_and_seed_are_no_part_of_the_program(monkeypatch):
    programs = []
    monkeypatch.setattr(engine, "compile_for_backend", lambda x, _: programs.append(x.as_text()))
    monkeypatch.setattr(engine, "_program_bytes", lambda program: 0)
    for seed, rate in ((0, 0.1), (1, 0.2)):
        tiny.make_engine(seed=seed, schedule=lambda step, rate=rate: rate)
    tiny.make_engine(ops="flip")
    assert programs[0] == programs[1] != programs[2]


def test_compiler_options_that_a_jaxlib_does_not_know_are_left_out(monkeypatch):
    known = dict(engine._CPU_COMPILER_OPTIONS)
    monkeypatch.setitem(engine._CPU_COMPILER_OPTIONS, "xla_cpu_no_such_option", True)
    lowered = jax.jit(lambda x: x + 1).lower(1.0)
    tried, compile_it = [], lowered.compile
    monkeypatch.setattr(
        lowered, "compile", lambda **given: tried.append(given) or compile_it(**given)
    )
    assert engine.compile_for_backend(lowered)(1.0) == 2.0
    assert [given["compiler_options"] for given in tried] == [engine._CPU_COMPILER_OPTIONS, known]


def test_cuda_graphs_hold_convolutions_and_loops_where_asked_for(monkeypatch):
    class Lowered:
        def compile(self, compiler_options):
            return compiler_options

    loaded = []
    monkeypatch.setattr(engine, "_load_cudnn", lambda: loaded.append(True))
    assert engine.compile_for_backend(Lowered(), cuda_graph=True) == engine._CPU_COMPILER_OPTIONS
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert engine.compile_for_backend(Lowered()) is None and not loaded
    options = engine.compile_for_backend(Lowered(), cuda_graph=True)
    commands = options["xla_gpu_enable_command_buffer"].split(",")
    assert {"FUSION", "CUDNN", "CONVOLUTION", "WHILE"} <= set(commands)
    assert loaded  # before the program runs, or its first capture fails


def test_cudnn_is_loaded_by_a_convolution_on_every_device(monkeypatch):
    used = []
    real = jax.lax.conv_general_dilated

    def convolve(images, *args, **kwargs):
        used.extend(images.devices())
        return real(images, *args, **kwargs)

    monkeypatch.setattr(jax.lax, "conv_general_dilated", convolve)
    engine._load_cudnn.__wrapped__()
    assert used == jax.local_devices()


def test_a_seed_makes_its_own_start():
    first, second = (tiny.make_engine(seed=seed).init().params for seed in (0, 2**32 - 1))
    assert tiny.distance(first, second) > 0.1


def test_pmap_takes_the_mean_of_the_replicas_gradients():
    """With SGD at a learning rate of 1, the update is the gradient of each replica's 8 images."""
    setup = dict(options=NETWORKS["thin resnet"][1], optimizer=optax.sgd(1.0), ops="")
    eng = tiny.make_engine("resnet18", num_devices=2, parallel="pmap", **setup)
    state = eng.init()
    start = jax.device_get(eng.snapshot(state))
    order = np.asarray(eng.plan(state, 0).order)  # [2, steps, 8]
    state, _ = eng.run(state, eng.no_metrics(), eng.plan(state, 0), 1)
    end = jax.device_get(eng.snapshot(state))

    # Alone: engines whose whole training set is one replica's batch, in any order.
    train = tiny.dataset().train
    ends = []
    for replica in range(2):
        part = data.Split(*(x[order[replica, 0]] for x in train))
        alone = tiny.make_engine("resnet18", train=part, batch_size=8, **setup)
        one, _ = alone.run(alone.init(), alone.no_metrics(), alone.plan(alone.init(), 0), 1)
        ends.append(jax.device_get(one))
    for part in ("params", "batch_stats"):
        mean = jax.tree.map(lambda a, b: (a + b) / 2, *(getattr(e, part) for e in ends))
        moved = jax.tree.map(np.subtract, getattr(end, part), getattr(start, part))
        wanted = jax.tree.map(np.subtract, mean, getattr(start, part))
        assert tiny.greatest_difference(moved, wanted) < 1e-4, part
    # And the replicas saw different statistics: a global batch would have moved otherwise.
    assert tiny.greatest_difference(ends[0].batch_stats, ends[1].batch_stats) > 1e-3


@pytest.mark.parametrize(
    ("batch_size", "num_devices", "message"),
    [
        (12, 8, "nearest that does: 8 or 16"),
        (5, 8, "nearest that does: 8"),
        (101, 1, "1 to 100, the images of the training split, not 101"),
        (0, 1, "not 0"),
    ],
)
def test_wrong_batch_sizes_are_refused(batch_size, num_devices, message):
    with pytest.raises(UserError, match=message):
        engine.check_batch_size(batch_size, 100, num_devices)


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
    # The last batch is filled up with real images, of weight nothing.
    assert batch.weights.sum() == batch.num_counting == 100 - 6 * 16
    assert np.array_equal(batch.labels[4:], orders[0][0, :12])


def test_replicas_gather_what_one_device_does():
    train = tiny.dataset().train
    order = step.epoch_order(jax.random.key(0), 0, 100, 16)
    whole = engine.gather(*train, order, 6, 100)
    for replica in range(4):
        part = engine.gather(
            *train, order[:, 4 * replica : 4 * replica + 4], 6, 100, 4 * replica, 4
        )
        for a, b in zip(part, whole):
            np.testing.assert_array_equal(a, b[4 * replica : 4 * replica + 4] if b.ndim else b)


def test_a_batch_knows_its_images_and_its_epoch():
    images, labels = (jnp.arange(10, dtype=jnp.int32) for _ in range(2))
    order = engine.epoch_order(jax.random.key(0), 0, 10, 4)
    for at, epoch in ((1, 0), (4, 1), (8, 2)):
        batch = engine.gather(images, labels, order, jnp.int32(at), 10)
        np.testing.assert_array_equal(batch.indices, batch.images)
        np.testing.assert_array_equal(batch.epochs, np.full(4, epoch))


def test_alternating_flips_and_mixes_train_on_many_devices_as_on_one():
    losses = []
    for num_devices in (1, 8):
        eng = tiny.make_engine(
            "cnn_small", ops="alternating_flip", mix="cutmix(1.0)", num_devices=num_devices
        )
        _, epoch = tiny.run_steps(eng, eng.init(), 2 * eng.steps_per_epoch)
        losses.append(metrics.fetch(epoch)["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(("name", "options"), [("cnn_small", {}), ("resnet18", {"width": 16})])
def test_a_step_as_shipped_equals_one_without_forms_for_cpus(name, options, monkeypatch):
    """The reference runs lax's convolutions and products on the CPU, as a GPU would."""
    setup = dict(options=options, optimizer=optax.sgd(1.0), batch_size=4, ops="")
    eng = tiny.make_engine(name, **setup)
    start, (ours, _) = jax.device_get((eng.init(), tiny.run_steps(eng, eng.init(), 1)))

    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cpu, default: default(*args))
    monkeypatch.delitem(engine._CPU_COMPILER_OPTIONS, "xla_backend_optimization_level")
    eng = tiny.make_engine(name, **setup, loop=False)
    expected, _ = jax.device_get(tiny.run_steps(eng, eng.init(), 1))

    # The distances are about 3e-6, but where rounding changes the sign of a rectifier's input, the
    # gradient jumps.
    for part, tolerance in (("params", 1e-2), ("batch_stats", 1e-5)):
        moved = [
            jax.tree.map(np.subtract, getattr(end, part), getattr(start, part))
            for end in (ours, expected)
        ]
        if moved[0]:
            assert tiny.distance(*moved) < tolerance, part
