"""How steps are run: one per call or many in a loop on the device, by jit or by pmap.

The data set lies on every device; a call gathers, augments, trains and measures without the host.
The number of steps of a call is an argument of the compiled program, so that an epoch may be cut
anywhere (the last call of an epoch, a resumed run, a progress bar) and compiles once. So are the
learning rates and the seed: runs that differ in nothing else have the same program, which the
compilation cache finds again.
"""

import contextlib
import ctypes
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from cifar_jax.errors import UserError, unknown
from cifar_jax.metrics import Metrics
from cifar_jax.step import Batch, TrainState, TrainStep, epoch_order

AXIS = "batch"
PARALLEL = ("jit", "pmap")

# Measured on x86 with AVX-512.
_CPU_COMPILER_OPTIONS = {
    # XLA's default hands single convolutions to YNNPACK, which loses to Eigen by 1.2 to 2.2 times
    # on this suite's networks.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
    # Fewer copies of what a loop carries.
    "xla_cpu_copy_insertion_use_region_analysis": True,
}

# XLA's default set of commands in CUDA graphs, and the two that it leaves out: each convolution
# then splits the step into another graph, and the host runs the loop, waiting for the device at
# every step to read whether another follows. With both a whole call is one graph.
_CUDA_GRAPH_OPTIONS = {
    "xla_gpu_enable_command_buffer": (
        "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,DYNAMIC_SLICE_FUSION,"
        "CONVOLUTION,WHILE"
    ),
}


class Plan(NamedTuple):
    """What the steps of an epoch are given.

    Attributes:
      order: [steps, B] int32, the examples of each batch; inside pmap [replicas, steps, b].
      rates: [steps] float32, learning rates.
    """

    order: jax.Array
    rates: jax.Array


class Engine(NamedTuple):
    """The compiled ways of a run.

    Attributes:
      steps_per_epoch: ceil(num_examples / batch_size).
      compile_seconds: of the training program, tracing included; little where it was kept from an
        earlier start (see runtime.compilation_cache).
      trace_seconds: of them, those of tracing.
      program_bytes: what arguments, results and temporary arrays of the training program take on
        one device, the data set included; None where XLA does not say.
      init: () -> state at step 0.
      plan: (state, epoch) -> the epoch's plan, as `run` takes it.
      run: (state, metrics, plan, num_steps) -> (state, metrics) after so many further steps of
        the epoch that state.step lies in; the given state's buffers are given up.
      no_metrics: () -> metrics of nothing, to begin an epoch with.
      snapshot: state -> the same state, replicated over the mesh: for evaluation and checkpoints.
      place: the inverse of `snapshot`.
      replicated: the sharding of a snapshot.
    """

    steps_per_epoch: int
    compile_seconds: float
    trace_seconds: float
    program_bytes: int | None
    init: Callable[[], TrainState]
    plan: Callable[[TrainState, int], Plan]
    run: Callable[..., tuple[TrainState, Metrics]]
    no_metrics: Callable[[], Metrics]
    snapshot: Callable[[Any], Any]
    place: Callable[[Any], Any]
    replicated: NamedSharding


def make_mesh(devices: list[jax.Device] | None = None) -> jax.sharding.Mesh:
    """Returns the one-dimensional mesh of the given or all local devices."""
    devices = devices or jax.local_devices()
    # Auto axes: the default, Explicit, refuses gathers from sharded arrays.
    return jax.make_mesh((len(devices),), (AXIS,), (AxisType.Auto,), devices=devices)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
    """Returns the sharding that puts the whole of an array on every device."""
    return NamedSharding(mesh, P())


def check_batch_size(batch_size: int, num_examples: int, num_devices: int) -> None:
    """Raises UserError where a batch does not fit the split or the devices."""
    if not 1 <= batch_size <= num_examples:
        raise UserError(
            f"batch_size needs 1 to {num_examples}, the images of the training split, "
            f"not {batch_size}"
        )
    if batch_size % num_devices:
        below = batch_size // num_devices * num_devices
        near = [b for b in (below, below + num_devices) if 0 < b <= num_examples]
        nearest = f"the nearest that does: {' or '.join(map(str, near))}"
        raise UserError(
            f"batch_size {batch_size} does not divide among {num_devices} devices; "
            f"{nearest if near else f'there are but {num_examples} images'}"
        )


def gather(images, labels, order, step, num_examples, offset=0, num_replicas=1) -> Batch:
    """Collects the batch of one step.

    Args:
      images: [N, H, W, C] uint8.
      labels: [N] int32.
      order: [steps, b] int32, this replica's part of the epoch's order.
      step: [] int32, of the run.
      num_examples: that count in an epoch; what order holds beyond them gets weight 0.
      offset: position in the global batch of this replica's first example.
      num_replicas: among which the global batch is split.
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
    """Returns the sharding of each part of a batch: by example, scalars replicated."""
    return jax.tree.map(lambda x: NamedSharding(mesh, P(AXIS) if jnp.ndim(x) else P()), batch)


def create(
    make_train_step: Callable[[str | None], TrainStep],
    init: Callable[[jax.Array], TrainState],
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    seed: int = 0,
    schedule: Callable[[jax.Array], jax.Array] | None = None,
    parallel: str = "jit",
    loop: bool = True,
    mesh: jax.sharding.Mesh | None = None,
    cuda_graph: bool = False,
) -> Engine:
    """Puts the data on the devices and compiles the training program.

    Args:
      make_train_step: from the axis name of pmap, or None, to a step.
      init: from the seed, [] uint32, to the state at step 0; traced.
      images: [N, H, W, C] uint8.
      labels: [N] int32.
      batch_size: of all devices together.
      seed: given to `init`; 0 to 2^32 - 1.
      schedule: from the step, [] int32, to the learning rate; None for 1 at every step.
      parallel: "jit" shards the batch and normalises over all of it; "pmap" keeps BatchNorm's
        batch statistics of each replica.
      loop: False compiles the bare step, and `run` then takes one step a call.
      mesh: of the devices to use; all local ones by default.
      cuda_graph: on NVIDIA GPUs, runs the steps of a call as one CUDA graph. Ignored elsewhere.

    Raises:
      UserError: for a batch size that does not fit, or an unknown `parallel`.
    """
    if parallel not in PARALLEL:
        raise unknown("parallel", parallel, PARALLEL)
    mesh = mesh or make_mesh()
    num_examples = len(images)
    check_batch_size(batch_size, num_examples, mesh.size)
    everywhere = replicated(mesh)
    make_way = _jit_way if parallel == "jit" else _pmap_way
    way = make_way(make_train_step, num_examples, batch_size, loop, mesh)

    init_replicated = jax.jit(init, out_shardings=everywhere)
    empty_replicated = jax.jit(Metrics.empty, out_shardings=everywhere)
    data = way.place(jax.device_put((images, np.asarray(labels, np.int32)), everywhere))
    steps_per_epoch = -(-num_examples // batch_size)
    steps = jnp.arange(steps_per_epoch, dtype=jnp.int32)
    rate_at = jax.vmap(lambda step: jnp.float32(1.0 if schedule is None else schedule(step)))
    rates = jax.jit(lambda first: rate_at(first + steps), out_shardings=everywhere)

    def start_state():
        return way.place(init_replicated(np.uint32(seed)))

    def plan(state, epoch):
        return Plan(way.order(state, epoch), rates(np.int32(epoch * steps_per_epoch)))

    state, metrics = start_state(), way.place(empty_replicated())
    first_plan = plan(state, 0)
    start = time.perf_counter()
    traced = way.run.lower(state, metrics, data, first_plan, np.int32(1))
    trace_seconds = time.perf_counter() - start
    program = compile_for_backend(traced, cuda_graph)
    compile_seconds = time.perf_counter() - start

    def run(state, metrics, plan, num_steps):
        if not loop and num_steps != 1:
            raise ValueError(f"this engine takes one step a call, not {num_steps}")
        return program(state, metrics, data, plan, np.int32(num_steps))

    return Engine(
        steps_per_epoch=steps_per_epoch,
        compile_seconds=compile_seconds,
        trace_seconds=trace_seconds,
        program_bytes=_program_bytes(program),
        init=start_state,
        no_metrics=lambda: way.place(empty_replicated()),
        plan=plan,
        run=run,
        snapshot=way.snapshot,
        place=way.place,
        replicated=everywhere,
    )


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


class _Way(NamedTuple):
    """What jit and pmap do differently."""

    run: Any  # jitted: (state, metrics, data, plan, num_steps) -> (state, metrics)
    order: Callable[[TrainState, int], jax.Array]
    place: Callable[[Any], Any]
    snapshot: Callable[[Any], Any]


def _many_steps(train_step: TrainStep, loop: bool, make_batch: Callable[..., Batch]):
    """Returns the program of one call."""

    def one(state, metrics, data, plan):
        rate = plan.rates[state.step % plan.rates.size]
        state, new = train_step(state, make_batch(*data, plan.order, state.step), rate)
        return state, metrics.merge(new)

    def run(state, metrics, data, plan, num_steps):
        if not loop:
            return one(state, metrics, data, plan)
        body = lambda _, carry: one(*carry, data, plan)  # noqa: E731
        return jax.lax.fori_loop(0, num_steps, body, (state, metrics))

    return run


def _jit_way(make_train_step, num_examples, batch_size, loop, mesh) -> _Way:
    """One program over the whole mesh; the batch is sharded, all else replicated."""

    def make_batch(images, labels, order, step):
        batch = gather(images, labels, order, step, num_examples)
        return jax.lax.with_sharding_constraint(batch, batch_sharding(batch, mesh))

    run = _many_steps(make_train_step(None), loop, make_batch)
    order = jax.jit(
        lambda key, epoch: epoch_order(key, epoch, num_examples, batch_size),
        out_shardings=NamedSharding(mesh, P(None, AXIS)),
    )
    return _Way(
        run=jax.jit(run, donate_argnums=0, out_shardings=replicated(mesh)),
        order=lambda state, epoch: order(state.key, epoch),
        place=lambda tree: tree,
        snapshot=lambda tree: tree,
    )


def _pmap_way(make_train_step, num_examples, batch_size, loop, mesh) -> _Way:
    """One program per replica; every array gets a leading axis of replicas."""
    num = mesh.size
    stacked = NamedSharding(mesh, P(AXIS))

    def make_batch(images, labels, order, step):
        offset = jax.lax.axis_index(AXIS) * order.shape[1]
        return gather(images, labels, order, step, num_examples, offset, num)

    def stack(tree):
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *x.shape)), tree)

    def split_order(keys, epoch):
        order = epoch_order(keys[0], epoch, num_examples, batch_size)
        return order.reshape(order.shape[0], num, -1).swapaxes(0, 1)

    run = _many_steps(make_train_step(AXIS), loop, make_batch)
    order = jax.jit(split_order, out_shardings=stacked)
    return _Way(
        run=jax.pmap(
            run,
            axis_name=AXIS,
            in_axes=(0, 0, 0, Plan(order=0, rates=None), None),
            donate_argnums=0,
            devices=list(mesh.devices.flat),
        ),
        order=lambda state, epoch: order(state.key, epoch),
        place=jax.jit(stack, out_shardings=stacked),
        snapshot=jax.jit(
            lambda tree: jax.tree.map(lambda x: x[0], tree),
            out_shardings=replicated(mesh),
        ),
    )


def compile_for_backend(
    lowered: jax.stages.Lowered, cuda_graph: bool = False
) -> jax.stages.Compiled:
    """Compiles with the options that pay on the backend; without those it does not know.

    Args:
      lowered: the program.
      cuda_graph: on NVIDIA GPUs, puts convolutions and loops into CUDA graphs too.
    """
    options = {}
    if jax.default_backend() == "cpu":
        options = dict(_CPU_COMPILER_OPTIONS)
    elif jax.default_backend() == "gpu" and cuda_graph:
        options = dict(_CUDA_GRAPH_OPTIONS)
        _load_cudnn()
    while True:
        try:
            program = lowered.compile(compiler_options=options or None)
            break
        except jax.errors.JaxRuntimeError as error:  # another jaxlib, another set of options
            if not options:
                raise
            known = {name: value for name, value in options.items() if name not in str(error)}
            options = known if len(known) < len(options) else {}
    _give_back_memory()
    return program


@functools.cache
def _load_cudnn() -> None:
    """Runs a small convolution on every local device, outside any CUDA graph.

    XLA creates cuDNN's handle for a device when it first needs it, and cuDNN refuses to while a
    graph is being captured: "No DNN support for stream". A process that compiles a network has the
    handle from autotuning; one that loads it from the compilation cache has not (jaxlib 0.11.2).
    """
    shapes = jnp.zeros((1, 8, 8, 8)), jnp.zeros((3, 3, 8, 8))
    for device in jax.local_devices():
        images, kernel = jax.device_put(shapes, device)
        dimensions = ("NHWC", "HWIO", "NHWC")
        jax.block_until_ready(
            jax.lax.conv_general_dilated(
                images, kernel, (1, 1), "SAME", dimension_numbers=dimensions
            )
        )


def _give_back_memory() -> None:
    """Hands what the compiler has freed back to the system: the C library would keep it.

    Does nothing where the C library is not glibc.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
