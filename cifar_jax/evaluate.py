"""Evaluates a network on a whole split in one call; the last batch is padded and masked."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from cifar_jax.engine import AXIS, batch_sharding, replicated
from cifar_jax.metrics import Metrics
from cifar_jax.runtime import distributed
from cifar_jax.runtime.compiler import compile_for_backend
from cifar_jax.step import Batch, EvalStep, TrainState

Evaluate = Callable[[TrainState], tuple[Metrics, jax.Array]]


def make_evaluate(
    eval_step: EvalStep,
    images: np.ndarray | Callable[[TrainState], jax.Array],
    labels: np.ndarray,
    *,
    batch_size: int,
    mesh: jax.sharding.Mesh,
) -> Evaluate:
    """Puts a split on the devices and returns the function that evaluates a state on it.

    Args:
      eval_step: Maps (params, batch_stats, batch) to (logits, metrics).
      images: [N, H, W, C] uint8, or features.Features, which are computed from the first state.
      labels: [N] int32.
      batch_size: The number of images per step, rounded up to a multiple of the number of devices.
      mesh: The devices over which batches are sharded.

    Returns:
      A function that maps a replicated state to its metrics on the split and its logits,
      [N, num_classes] float32, both on the device. It evaluates the average of a state that has
      one (see TrainState.evaluated), and compiles when first called.
    """
    num_examples = len(labels)
    batch_size = -(-min(batch_size, num_examples) // mesh.size) * mesh.size
    missing = -num_examples % batch_size
    order = jnp.pad(jnp.arange(num_examples, dtype=jnp.int32), (0, missing))
    weights = jnp.pad(jnp.ones(num_examples), (0, missing))
    labels = np.asarray(labels, np.int32)
    jitted = _jit_program(eval_step, num_examples, mesh)

    def put(images):
        return distributed.put((images, labels), replicated(mesh))

    data = None if callable(images) else put(images)
    rows = distributed.put(
        (order.reshape(-1, batch_size), weights.reshape(-1, batch_size)),
        NamedSharding(mesh, P(None, AXIS)),
    )

    program = None

    def evaluate(state: TrainState) -> tuple[Metrics, jax.Array]:
        nonlocal data, program
        if data is None:
            data = put(images(state))
        if program is None:
            program = compile_for_backend(jitted.lower(*state.evaluated, data, rows))
        return program(*state.evaluated, data, rows)

    return evaluate


def _jit_program(
    eval_step: EvalStep, num_examples: int, mesh: jax.sharding.Mesh
) -> Callable[..., tuple[Metrics, jax.Array]]:
    """Returns the jitted program (params, batch_stats, data, rows), which evaluates a split.

    `data` is (images [N, H, W, C] or features, labels [N] int32). `rows` is (indices int32, weights
    float32) of the examples of every batch, [steps, B] each.
    """

    def run(params, batch_stats, data, rows):
        images, labels = data

        def body(metrics, row):
            indices, weights = row
            batch = Batch(images[indices], labels[indices], weights)
            batch = jax.lax.with_sharding_constraint(batch, batch_sharding(batch, mesh))
            logits, new = eval_step(params, batch_stats, batch)
            return metrics.merge(new), logits

        metrics, logits = jax.lax.scan(body, Metrics.empty(), rows)
        return metrics, logits.reshape(-1, logits.shape[-1])[:num_examples]

    return jax.jit(run, out_shardings=replicated(mesh))


def lower(
    eval_step: EvalStep,
    state: TrainState,
    *,
    num_examples: int,
    batch_size: int,
    mesh: jax.sharding.Mesh,
) -> jax.stages.Lowered:
    """Lowers the program of `make_evaluate`, given only shapes; see engine.lower.

    Args:
      eval_step: As for make_evaluate.
      state: The state to evaluate, which may hold shapes instead of arrays.
      num_examples: The number of images, which have 32 x 32 pixels and three channels.
      batch_size: The number of images per step, a multiple of the number of devices.
      mesh: The devices to lower for.
    """

    def shaped(shape, dtype, *spec):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, P(*spec)))

    params, batch_stats = jax.tree.map(lambda x: shaped(x.shape, x.dtype), state.evaluated)
    data = shaped((num_examples, 32, 32, 3), jnp.uint8), shaped((num_examples,), jnp.int32)
    shape = -(-num_examples // batch_size), batch_size
    rows = tuple(shaped(shape, dtype, None, AXIS) for dtype in (jnp.int32, jnp.float32))
    return _jit_program(eval_step, num_examples, mesh).lower(params, batch_stats, data, rows)
