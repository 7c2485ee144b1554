"""Measures the training step of one network."""

import time
from functools import partial

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from benchmarks import harness, peak
from benchmarks.harness import Record, TimedLoop
from benchmarks.idle import background_load, processor_seconds
from benchmarks.throughput.flops import count_flops
from cifar_jax import data, experiment
from cifar_jax.engine import batch_sharding, gather
from cifar_jax.metrics import Metrics, fetch
from cifar_jax.runtime.compiler import compile_for_backend
from cifar_jax.runtime.environment import environment

NUM_IMAGES = 50_000


def measure_network(
    name: str, settings: ConfigDict, seconds: float, with_input_share: bool = False
) -> Record:
    """Measures one network and returns its record.

    Args:
      name: The name of the network in the record.
      settings: The config that it trains with.
      seconds: The approximate total time of all rounds. At least three rounds are run.
      with_input_share: Whether to measure the input's share of a step, which takes a second program
        and doubles the time.

    Raises:
      RuntimeError: If the loss becomes NaN or infinite.
    """
    settings = experiment.resolved(settings)
    settings.data.val_fraction = 0.0
    dataset = random_data(settings)
    training = _Training(settings, dataset)
    first_step = harness.timed(training, 1)
    loops: dict[str, TimedLoop] = {"training": training}
    if with_input_share:
        loops["without input"] = loop_without_input(settings, dataset)
        loops["without input"](1)
    before = processor_seconds()
    num_rounds, num_steps = harness.plan_rounds(training, seconds)
    turns = {key: partial(harness.seconds_per_step, loop, num_steps) for key, loop in loops.items()}
    results = harness.interleave(turns, num_rounds)
    after = processor_seconds()
    times = results["training"]
    single_step = min(harness.timed(training, 1) for _ in range(3))
    harness.check_loss(training.loss())
    step_time = float(np.median(times))
    without_input = results.get("without input")
    return {
        "model": name,
        "config": settings.experiment,
        "batch_size": settings.batch_size,
        "dtype": settings.dtype,
        "num_params": training.num_params,
        "compile_seconds": training.engine.compile_seconds,
        "create_seconds": training.create_seconds,
        "first_step_ms": 1e3 * first_step,
        "step_time_ms": {
            "median": 1e3 * step_time,
            "p95": 1e3 * float(np.percentile(times, 95)),
            "min": 1e3 * min(times),
            "max": 1e3 * max(times),
        },
        "rounds": len(times),
        "steps_per_round": num_steps,
        "images_per_second": settings.batch_size / step_time,
        "input_share": without_input and 1 - float(np.median(without_input)) / step_time,
        "call_overhead_ms": 1e3 * max(single_step - step_time, 0.0),
        **_flops(settings, dataset, step_time),
        "program_bytes": training.engine.program_bytes,
        **harness.background(background_load(before, after)),
        **environment(),
    }


class _Training:
    """The training loop of cifar_jax, as a contender.

    Attributes:
      engine: The compiled program.
      create_seconds: The time for creating the engine, including compilation.
      num_params: The number of parameters.
    """

    def __init__(self, settings: ConfigDict, dataset: data.Dataset):
        start = time.perf_counter()
        self.engine = experiment.create(settings, dataset).engine
        self.create_seconds = time.perf_counter() - start
        self._state, self._metrics = self.engine.init(), self.engine.no_metrics()
        self.num_params = sum(x.size for x in jax.tree.leaves(self._state.params))
        self._plan = jax.block_until_ready(self.engine.plan(self._state, 0))

    def __call__(self, num_steps: int) -> None:
        self._state, self._metrics = jax.block_until_ready(
            self.engine.run(self._state, self._metrics, self._plan, num_steps)
        )

    def loss(self) -> float:
        """Returns the mean loss of all steps so far."""
        return fetch(self._metrics)["loss"]


def _flops(settings: ConfigDict, dataset: data.Dataset, step_time: float) -> Record:
    """Returns the record's fields about FLOPs, given the time of a step in seconds."""
    flops = count_flops(settings, dataset)
    num_devices = 1 if jax.default_backend() == "cpu" else jax.local_device_count()
    data_sheet = peak.data_sheet(settings.dtype)
    return {
        "flops_per_step": flops,
        "flops_per_second": flops and flops / step_time,
        "peak_flops_per_second": {
            "measured": peak.measured(settings.dtype) * num_devices,
            "data_sheet": data_sheet and data_sheet * num_devices,
        },
    }


def loop_without_input(settings: ConfigDict, dataset: data.Dataset) -> TimedLoop:
    """Returns a training loop on one fixed batch, which is neither gathered nor augmented."""
    settings = settings.copy_and_resolve_references()
    settings.augment.ops = settings.augment.mix = ""
    parts = experiment.make_parts(settings, dataset.info)
    train_step, mesh = parts.make_train_step(None), experiment.make_mesh()
    replicated = NamedSharding(mesh, P())
    order = np.arange(settings.batch_size, dtype=np.int32)[None]
    batch = gather(*dataset.train, order, 0, settings.batch_size)
    batch = jax.device_put(batch, batch_sharding(batch, mesh))
    state = jax.jit(parts.init, out_shardings=replicated)(np.uint32(0))
    metrics = jax.device_put(Metrics.empty(), replicated)

    def steps(state, metrics, batch, learning_rate, count):
        def one(_, carry):
            # Without the barrier XLA would hoist computations that depend only on the batch.
            state, metrics, carried_batch = jax.lax.optimization_barrier((*carry, batch))
            state, new = train_step(state, carried_batch, learning_rate)
            return state, metrics.merge(new)

        return jax.lax.fori_loop(0, count, one, (state, metrics))

    def arguments(count: int):
        return state, metrics, batch, np.float32(1e-3), np.int32(count)

    program = compile_for_backend(jax.jit(steps, donate_argnums=0).lower(*arguments(1)))

    def run(num_steps: int) -> None:
        nonlocal state, metrics
        state, metrics = jax.block_until_ready(program(*arguments(num_steps)))

    return run


def random_data(settings: ConfigDict) -> data.Dataset:
    """Returns random images and labels with as many images and classes as the config's data set.

    Fewer images would fit into the processor's caches, and the network would memorize them.
    """
    info = random_data_info(settings)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_IMAGES, 32, 32, 3), np.uint8)
    split = data.Split(images, rng.integers(0, info.num_classes, NUM_IMAGES, np.int32))
    return data.Dataset(train=split, val=None, test=split, info=info)


def random_data_info(settings: ConfigDict) -> data.DatasetInfo:
    """Returns the `DatasetInfo` of `random_data`, without the images."""
    num_classes = data.num_classes(settings.data.name, settings.data.label)
    return data.DatasetInfo(
        class_names=tuple(map(str, range(num_classes))),
        mean=np.full(3, 0.5, np.float32),
        std=np.full(3, 0.25, np.float32),
    )
