"""The engine, which trains for any number of steps in one call of a compiled program.

Every device holds the whole data set. A call gathers batches, augments them, trains on them and
accumulates metrics without involving the host. The number of steps is an argument of the program,
so one program serves all calls, and a call may end anywhere in an epoch, for example to update a
progress bar or to save a checkpoint. The learning rates and the seed are arguments too, so runs
that differ only in these share one program in the compilation cache.
"""

import bisect
import copy
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from cifar_jax.errors import UserError, unknown
from cifar_jax.metrics import Metrics
from cifar_jax.runtime import distributed
from cifar_jax.runtime.compiler import compile_for_backend
from cifar_jax.step import Batch, TrainState, TrainStep, epoch_order

T = TypeVar("T")

AXIS = "batch"
# The max number of training images that `fit_to_images` receives.
NUM_FIT_IMAGES = 5000
PARALLEL = ("jit", "pmap")


class Plan(NamedTuple):
    """The order of the examples in an epoch, and the learning and averaging rates of its steps.

    Attributes:
      order: [steps, B] int32, the examples of each batch; under pmap, [replicas, steps, b].
      learning_rates: [steps] float32, the learning rate of each step, or [steps, num_groups] for
        groups of parameters.
      average_rates: [steps] float32, the fraction by which the average moves towards the latest
        values after each step; None without an average.
      program: The index of the compiled program that takes the epoch's steps; None in the plan that
        the program itself receives.
    """

    order: jax.Array
    learning_rates: jax.Array
    average_rates: jax.Array | None = None
    program: int | None = None


def make_mesh(devices: list[jax.Device] | None = None) -> jax.sharding.Mesh:
    """Returns the one-dimensional mesh of the given devices, or of all devices of all hosts."""
    devices = devices or jax.devices()
    # Auto axes, because the default, Explicit, refuses gathers from sharded arrays.
    return jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Returns the sharding that puts a full copy of an array on every device."""
    return NamedSharding(mesh, P())


def count_steps(
    batch_size: int, num_examples: int, num_devices: int, drop_last: bool = False
) -> int:
    """Returns the number of steps per epoch, ceil(num_examples / batch_size).

    With drop_last, it is floor(num_examples / batch_size).

    Raises:
      UserError: If the batch size does not fit the split or the devices.
    """
    if not 1 <= batch_size <= num_examples:
        raise UserError(
            f"batch_size must be from 1 to {num_examples}, the number of training images, "
            f"got {batch_size}"
        )
    if batch_size % num_devices:
        below = batch_size // num_devices * num_devices
        near = [b for b in (below, below + num_devices) if 0 < b <= num_examples]
        nearest = f"the nearest valid value is {' or '.join(map(str, near))}"
        raise UserError(
            f"batch_size {batch_size} is not divisible by the number of devices, {num_devices}; "
            f"{nearest if near else f'there are only {num_examples} images'}"
        )
    return num_examples // batch_size if drop_last else -(-num_examples // batch_size)


def gather(images, labels, order, step, num_examples, offset=0, num_replicas=1) -> Batch:
    """Collects the batch of one step.

    Args:
      images: [N, H, W, C] uint8, or features [N, D] float32.
      labels: [N] int32.
      order: [steps, b] int32, this replica's part of the epoch's order.
      step: [] int32, the step, counted from the start of the run.
      num_examples: The number of examples in an epoch. Entries of `order` beyond it are padding and
        have weight 0.
      offset: The position of this replica's first example in the global batch.
      num_replicas: The number of replicas among which the global batch is split.
    """
    epoch, row = step // order.shape[0], step % order.shape[0]
    indices = order[row]
    position = offset + jnp.arange(indices.size, dtype=jnp.int32)
    place_in_epoch = row * indices.size * num_replicas + position
    weights = (place_in_epoch < num_examples).astype(jnp.float32)
    batch_size = indices.size * num_replicas
    num_counting = jnp.minimum(num_examples - row * batch_size, batch_size).astype(jnp.float32)
    epochs = jnp.full_like(indices, epoch)
    return Batch(images[indices], labels[indices], weights, num_counting, indices, epochs)


def batch_sharding(batch: Batch, mesh: jax.sharding.Mesh) -> Batch:
    """Returns the sharding of each array of a batch: by example; scalars are replicated."""
    return jax.tree.map(lambda x: NamedSharding(mesh, P(AXIS) if jnp.ndim(x) else P()), batch)


def many_steps(train_step: TrainStep, make_batch: Callable[..., Batch], loop: bool) -> Callable:
    """Returns the training program of one call, before jit or pmap.

    Args:
      train_step: The training step.
      make_batch: Maps images, labels, the epoch's order and the step to the batch.
      loop: Whether to loop over steps. If False, the program takes one step, whatever num_steps is.

    Returns:
      A function from (state, metrics, (images, labels), plan, num_steps) to state and metrics.
    """

    def one(state, metrics, data, plan):
        step_in_epoch = state.step % len(plan.learning_rates)
        rates = [plan.learning_rates[step_in_epoch]]
        if plan.average_rates is not None:
            rates.append(plan.average_rates[step_in_epoch])
        batch = make_batch(*data, plan.order, state.step)
        state, new = train_step(state, batch, *rates)
        return state, metrics.merge(new)

    def run(state, metrics, data, plan, num_steps):
        if not loop:
            return one(state, metrics, data, plan)
        body = lambda _, carry: one(*carry, data, plan)  # noqa: E731
        return jax.lax.fori_loop(0, num_steps, body, (state, metrics))

    return run


def create(*args: Any, parallel: str = "jit", **kwargs: Any) -> "Engine":
    """Builds an Engine (parallel="jit") or a PmapEngine ("pmap") from Engine's arguments.

    Raises:
      UserError: If `parallel` is unknown, or for the reasons listed in Engine.
    """
    if parallel not in PARALLEL:
        raise unknown("parallel", parallel, PARALLEL)
    return (Engine if parallel == "jit" else PmapEngine)(*args, **kwargs)


class Engine:
    """Trains a network for many steps in one compiled call; the batch is sharded over the devices.

    `init` returns a state, which `run` takes and returns. `snapshot` turns a state into plain
    replicated arrays for evaluation and checkpoints, and `place` turns those into a state again.
    The same holds for metrics.

    Attributes:
      mesh: The devices.
      replicated: The sharding of a snapshot, which puts a full copy of an array on every device.
      steps_per_epoch: The number of steps, ceil(num_examples / batch_size).
      compile_seconds: The time that tracing and compiling the training program took; short if the
        program was in the compilation cache.
      trace_seconds: The part of compile_seconds spent on tracing and lowering.
      program_bytes: The size on one device of the training program's arguments (with the data set),
        results and temporary arrays; None if XLA does not report it. Of several programs, it is
        that of the largest.
    """

    def __init__(
        self,
        make_train_step: Callable[[str | None], TrainStep],
        init: Callable[[jax.Array], TrainState],
        images: np.ndarray | Callable[[TrainState], jax.Array],
        labels: np.ndarray,
        *,
        batch_size: int,
        seed: int = 0,
        schedule: Callable[[jax.Array], jax.Array] | None = None,
        pretrained: Callable[[TrainState], TrainState] | None = None,
        loop: bool = True,
        mesh: jax.sharding.Mesh | None = None,
        cuda_graph: bool = False,
        average_rate: Callable[[jax.Array], jax.Array] | None = None,
        drop_last: bool = False,
        later: Mapping[int, Callable[[str | None], TrainStep]] | None = None,
        fit_to_images: Callable[[TrainState, jax.Array], TrainState] | None = None,
    ):
        """Puts the data on the devices and compiles the training program.

        Args:
          make_train_step: Maps the axis name of pmap, or None under jit, to a training step.
          init: Maps the seed, [] uint32, to the state at step 0. It is traced.
          images: [N, H, W, C] uint8, or features.Features, which are computed from the state that
            `run` first receives.
          labels: [N] int32.
          batch_size: The number of images per step, over all devices.
          seed: The seed to pass to `init`, from 0 to 2^32 - 1.
          schedule: Maps the step, [] int32, to the learning rate, or to those of groups of
            parameters, [num_groups]; None for 1 at every step.
          pretrained: Replaces the random parameters in the state at step 0 with trained ones.
          loop: Whether to compile a loop over steps. If False, `run` takes one step per call.
          mesh: The devices to use; by default, all of all hosts.
          cuda_graph: Whether to run the steps of a call as one CUDA graph on NVIDIA GPUs. Ignored
            on other devices.
          average_rate: Maps the step, [] int32, to the rate of the average; None if the states have
            no average. See optim/averaging.py.
          drop_last: Whether to drop the incomplete last batch of every epoch.
          later: {epoch: make_train_step}, the training steps that replace the first one, each from
            its epoch on, counted from 0. Each is compiled to a program of its own.
          fit_to_images: Maps the state at step 0 and the first training images [n, H, W, C] uint8,
            with n at most NUM_FIT_IMAGES, to the state to start from. It is traced by jit.

        Raises:
          UserError: If the batch size does not fit the data or the devices.
        """
        self.mesh = mesh or make_mesh()
        self.replicated = replicated(self.mesh)
        self._num_examples, self._batch_size, self._loop = len(labels), batch_size, loop
        self.steps_per_epoch = count_steps(
            batch_size, self._num_examples, self.mesh.size, drop_last
        )
        self._drop_last = drop_last
        self._seed, self._pretrained = np.uint32(seed), pretrained
        self._first_epochs = sorted(later or {})

        self._init = jax.jit(init, out_shardings=self.replicated)
        self._fit = fit_to_images and jax.jit(fit_to_images, out_shardings=self.replicated)
        self._no_metrics = jax.jit(Metrics.empty, out_shardings=self.replicated)
        self._order = self._jit_order()
        self._learning_rates = self._jit_rates(schedule or (lambda step: 1.0))
        self._average_rates = average_rate and self._jit_rates(average_rate)
        self._labels = np.asarray(labels, np.int32)
        self._features = images if callable(images) else None
        self._data = None
        if not callable(images):
            self.upload(images, labels)
        data = self._data or self._abstract_data(images)

        state, metrics = self.init(load=False), self.no_metrics()
        plan = self.plan(state, 0)._replace(program=None)
        arguments = self._to_lower((state, metrics, data, plan, np.int32(1)))
        start = time.perf_counter()
        make_steps = [make_train_step, *((later or {})[epoch] for epoch in self._first_epochs)]
        lowered = [
            self._jit_program(make_step, self.examples_per_epoch, self.mesh, loop).lower(*arguments)
            for make_step in make_steps
        ]
        self.trace_seconds = time.perf_counter() - start
        self._programs = [compile_for_backend(program, cuda_graph) for program in lowered]
        self.compile_seconds = time.perf_counter() - start
        sizes = [_program_bytes(program) for program in self._programs]
        self.program_bytes = None if None in sizes else max(sizes)

    @property
    def examples_per_epoch(self) -> int:
        """The number of different examples that an epoch trains on."""
        most = self.steps_per_epoch * self._batch_size
        return min(self._num_examples, most)

    def reseeded(self, seed: int) -> "Engine":
        """Returns an engine for another seed that shares the programs and the data.

        Args:
          seed: As for `__init__`.
        """
        other = copy.copy(self)
        other._seed = np.uint32(seed)
        other.trace_seconds = other.compile_seconds = 0.0
        return other

    def reused(
        self,
        seed: int,
        schedule: Callable[[int], Any],
        average_rate: Callable[[jax.Array], jax.Array] | None = None,
    ) -> "Engine":
        """Returns an engine for another seed and other rates that shares the programs and the data.

        Args:
          seed: As for `__init__`.
          schedule: As for `__init__`.
          average_rate: As for `__init__`. Both engines have one, or neither.
        """
        other = self.reseeded(seed)
        other._learning_rates = self._jit_rates(schedule)
        other._average_rates = average_rate and self._jit_rates(average_rate)
        return other

    def upload(self, images: np.ndarray, labels: np.ndarray) -> tuple[jax.Array, ...]:
        """Replaces the images and labels on the devices; copies them asynchronously.

        Args:
          images: uint8, of the shape that was passed to `__init__`.
          labels: [N] int32.

        Returns:
          What is copied, to wait for.
        """
        self._labels = np.asarray(labels, np.int32)
        self._data = self._put(images)
        if self._fit is None:
            return self._data
        self._fit_images = distributed.put(images[:NUM_FIT_IMAGES], self.replicated)
        return *self._data, self._fit_images

    def init(self, *, load: bool = True) -> TrainState:
        """Returns the state at step 0.

        Args:
          load: Whether to load pretrained parameters and to apply `fit_to_images`, if they were
            passed to `__init__`. A state that a checkpoint will replace needs neither.
        """
        state = self._init(self._seed)
        if load and self._pretrained is not None:
            loaded = distributed.local(self._pretrained(state))
            state = distributed.put(distributed.arrays_from_main(loaded), self.replicated)
        state = self.place(state)
        return self.fit(state) if load else state

    def fit(self, state: TrainState) -> TrainState:
        """Returns `fit_to_images` of the state at step 0, or the state itself if there is none."""
        if self._fit is None:
            return state
        return self.place(self._fit(self.snapshot(state), self._fit_images))

    def _put(self, images: np.ndarray | jax.Array) -> tuple[jax.Array, jax.Array]:
        """Puts the images and their labels on the devices."""
        return self.place(distributed.put((images, self._labels), self.replicated))

    def _abstract_data(self, images: Any) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Returns the shapes and the shardings of what `_put` returns."""
        data = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (images, self._labels)]
        return tuple(
            jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self._placed)
            for x in jax.eval_shape(self.place, data)
        )

    def no_metrics(self) -> Metrics:
        """Returns empty metrics, for the start of an epoch."""
        return self.place(self._no_metrics())

    def plan(self, state: TrainState, epoch: int) -> Plan:
        """Returns the plan of an epoch, counted from 0, for `run`."""
        first_step = np.int32(epoch * self.steps_per_epoch)
        return Plan(
            self._order(state.key, epoch),
            self._learning_rates(first_step),
            self._average_rates and self._average_rates(first_step),
            bisect.bisect_right(self._first_epochs, epoch),
        )

    def run(
        self, state: TrainState, metrics: Metrics, plan: Plan, num_steps: int
    ) -> tuple[TrainState, Metrics]:
        """Takes the next `num_steps` steps of the epoch that contains state.step.

        Args:
          state: The state to start from. Its buffers are donated: do not use it afterwards.
          metrics: The epoch's metrics so far.
          plan: The epoch's plan.
          num_steps: The number of steps, from 1 to the number left in the epoch.

        Returns:
          The state and the metrics after these steps, computed asynchronously.

        Raises:
          ValueError: If the engine was built with loop=False and num_steps is not 1.
        """
        if not self._loop and num_steps != 1:
            raise ValueError(f"this engine takes one step per call, not {num_steps}")
        if self._data is None:
            self._data = self._put(self._features(self.snapshot(state)))
        program = self._programs[plan.program]
        plan = plan._replace(program=None)
        return program(state, metrics, self._data, plan, np.int32(num_steps))

    def snapshot(self, tree: T) -> T:
        """Returns a state or metrics as plain arrays, replicated over the devices."""
        return tree

    def place(self, tree: T) -> T:
        """Returns a snapshot in the form that `run` takes; the inverse of `snapshot`."""
        return tree

    def _to_lower(self, arguments: T) -> T:
        """Returns the arguments in the form from which the program can be lowered."""
        return arguments

    @property
    def _placed(self) -> NamedSharding:
        """The sharding of what `place` returns."""
        return self.replicated

    @staticmethod
    def _jit_program(
        make_train_step: Callable[[str | None], TrainStep],
        num_examples: int,
        mesh: jax.sharding.Mesh,
        loop: bool,
    ) -> Any:
        """Returns the jitted program (state, metrics, data, plan, num_steps) of `run`."""

        def make_batch(images, labels, order, step):
            batch = gather(images, labels, order, step, num_examples)
            return jax.lax.with_sharding_constraint(batch, batch_sharding(batch, mesh))

        steps = many_steps(make_train_step(None), make_batch, loop)
        return jax.jit(steps, donate_argnums=0, out_shardings=replicated(mesh))

    def _jit_rates(self, rate: Callable[[jax.Array], Any]) -> Callable[[np.int32], jax.Array]:
        """Returns the jitted function that maps an epoch's first step to the rates of its steps."""
        steps = jnp.arange(self.steps_per_epoch, dtype=jnp.int32)
        at = jax.vmap(lambda step: jnp.float32(rate(step)))
        return jax.jit(lambda first: at(first + steps), out_shardings=self.replicated)

    def _jit_order(self) -> Callable[[jax.Array, int], jax.Array]:
        """Returns the jitted function that maps a state's key and an epoch to Plan.order."""
        return jax.jit(
            lambda key, epoch: self._epoch_order(key, epoch),
            out_shardings=NamedSharding(self.mesh, P(None, AXIS)),
        )

    def _epoch_order(self, key: jax.Array, epoch: jax.Array) -> jax.Array:
        return epoch_order(key, epoch, self._num_examples, self._batch_size, self._drop_last)


class PmapEngine(Engine):
    """An engine that uses pmap: BatchNorm uses the statistics of each replica's own examples.

    Every array of a state has a leading axis over the replicas.
    """

    def snapshot(self, tree: T) -> T:
        """Returns the first replica's state or metrics; all replicas hold the same values."""
        return self._first_replica(tree)

    def place(self, tree: T) -> T:
        """Returns a snapshot with a leading axis over the replicas."""
        return self._stack(tree)

    def _to_lower(self, arguments: T) -> T:
        # With several processes, pmap would read the keys of all of them (jax 0.10 and 0.11).
        if distributed.num_processes() == 1:
            return arguments

        def own_keys(array):
            if not distributed.is_key(array):
                return array
            shards = jax.random.key_data(array).addressable_shards
            return jax.random.wrap_key_data(np.concatenate([shard.data for shard in shards]))

        return jax.tree.map(own_keys, arguments)

    @property
    def _placed(self) -> NamedSharding:
        return NamedSharding(self.mesh, P(AXIS))

    @functools.cached_property
    def _stack(self) -> Callable[[Any], Any]:
        num = self.mesh.size
        return jax.jit(
            lambda tree: jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *x.shape)), tree),
            out_shardings=self._placed,
        )

    @functools.cached_property
    def _first_replica(self) -> Callable[[Any], Any]:
        return jax.jit(
            lambda tree: jax.tree.map(lambda x: x[0], tree), out_shardings=self.replicated
        )

    @staticmethod
    def _jit_program(
        make_train_step: Callable[[str | None], TrainStep],
        num_examples: int,
        mesh: jax.sharding.Mesh,
        loop: bool,
    ) -> Any:
        def make_batch(images, labels, order, step):
            offset = jax.lax.axis_index(AXIS) * order.shape[1]
            return gather(images, labels, order, step, num_examples, offset, mesh.size)

        return jax.pmap(
            many_steps(make_train_step(AXIS), make_batch, loop),
            axis_name=AXIS,
            in_axes=(0, 0, 0, Plan(order=0, learning_rates=None), None),
            donate_argnums=0,
            devices=list(mesh.devices.flat),
        )

    def _jit_order(self) -> Callable[[jax.Array, int], jax.Array]:
        def split_order(keys, epoch):
            order = self._epoch_order(keys[0], epoch)
            return order.reshape(order.shape[0], self.mesh.size, -1).swapaxes(0, 1)

        return jax.jit(split_order, out_shardings=NamedSharding(self.mesh, P(AXIS)))


def _program_bytes(program: jax.stages.Compiled) -> int | None:
    memory = program.memory_analysis()
    if memory is None:
        return None
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
    )


def lower(
    make_train_step: Callable[[str | None], TrainStep],
    init: Callable[[jax.Array], TrainState],
    *,
    num_examples: int,
    batch_size: int,
    mesh: jax.sharding.Mesh,
    schedule: Callable[[jax.Array], jax.Array] | None = None,
    drop_last: bool = False,
) -> jax.stages.Lowered:
    """Lowers a training program of an Engine, given only shapes.

    The devices of the mesh need not exist; see jax.experimental.topologies.

    Args:
      make_train_step: As for Engine, or one of its later training steps.
      init: As for Engine.
      num_examples: The number of training images, which have 32 x 32 pixels and three channels.
      batch_size: The number of images per step, over all devices.
      mesh: The devices to lower for.
      schedule: As for Engine. Only the shape of the learning rates matters.
      drop_last: As for Engine.

    Raises:
      UserError: If the batch size does not fit the data or the devices.
    """
    default_sharding = replicated(mesh)

    def on_mesh(tree, sharding=default_sharding):
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree
        )

    num_steps = count_steps(batch_size, num_examples, mesh.size, drop_last)
    num_counting = min(num_examples, num_steps * batch_size)
    images = jax.ShapeDtypeStruct((num_examples, 32, 32, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((num_examples,), jnp.int32)
    order = jax.ShapeDtypeStruct((num_steps, batch_size), jnp.int32)
    average_rates = on_mesh(jax.ShapeDtypeStruct((num_steps,), jnp.float32))
    per_step = jax.eval_shape(schedule or (lambda step: 1.0), np.int32(0)).shape
    learning_rates = on_mesh(jax.ShapeDtypeStruct((num_steps, *per_step), jnp.float32))
    order = on_mesh(order, NamedSharding(mesh, P(None, AXIS)))
    state = jax.eval_shape(init, np.uint32(0))
    return Engine._jit_program(make_train_step, num_counting, mesh, loop=True).lower(
        on_mesh(state),
        on_mesh(jax.eval_shape(Metrics.empty)),
        on_mesh((images, labels)),
        Plan(order, learning_rates, None if state.average is None else average_rates),
        on_mesh(jax.ShapeDtypeStruct((), jnp.int32)),
    )
