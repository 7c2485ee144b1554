"""Writes a trained network as a StableHLO program, which JAX runs without this package."""

from pathlib import Path

import jax
import jax.numpy as jnp
from jax import export

from cifar_jax import image_file
from cifar_jax.run import atomic
from cifar_jax.run.summary import write_json
from cifar_jax.step import Batch
from cifar_jax.trained.network_file import describe
from cifar_jax.trained.restore import Trained
from cifar_jax.transfer.packages import needing

# All platforms that jax.export supports. The program holds the form of every convolution for CPUs
# and the one for other platforms; which of them runs is decided when it is compiled.
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def write(network: Trained, path: Path) -> None:
    """Writes the program to a file and the values of `describe` to FILE.json next to it.

    Raises:
      UserError: If the package flatbuffers is not installed.
      OSError: If a file cannot be written.
    """
    program = serialize(network)
    write_json(path.with_name(f"{path.name}.json"), describe(network))
    with atomic.replacing(path) as part:
        part.write_bytes(program)


def serialize(network: Trained) -> bytes:
    """Returns the program images [B, 32, 32, 3] uint8 -> logits [B, num_classes] float32.

    It holds the parameters and the normalization of the pixels, and runs for any B of at least 1:
    `jax.jit(jax.export.deserialize(program).call)(images)`.

    Raises:
      UserError: If the package flatbuffers, which jax.export needs, is not installed.
    """
    with needing("exporting StableHLO"):
        import flatbuffers  # noqa: F401

    arrays = network.state.evaluated

    @jax.jit
    def logits(images: jax.Array) -> jax.Array:
        # Without the barrier, XLA transforms the constant kernels while it compiles. On a CPU,
        # compiling resnet18 then takes 3.5 times as long as with its parameters as arguments; with
        # the barrier, it takes 1.2 times as long.
        params, batch_stats = jax.lax.optimization_barrier(arrays)
        zeros = jnp.zeros(images.shape[0], jnp.int32)
        batch = Batch(images, labels=zeros, weights=zeros)  # only the metrics depend on these
        return network.parts.eval_step(params, batch_stats, batch)[0]

    size = image_file.SIZE
    shape = export.symbolic_shape(f"batch, {size}, {size}, 3")
    images = jax.ShapeDtypeStruct(shape, jnp.uint8)
    return bytes(export.export(logits, platforms=PLATFORMS)(images).serialize())
