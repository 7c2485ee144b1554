"""Returns the peak FLOP/s of a device, from its data sheet or measured with a matrix product."""

import functools

import jax
import jax.numpy as jnp

from benchmarks import harness
from cifar_jax.runtime.compiler import compile_for_backend

# FLOP/s of dense matrix products according to NVIDIA's data sheets for the SXM variants. The
# float32 figures are those of TF32, which JAX uses for float32 products by default on these
# devices.
DATA_SHEET = {
    "NVIDIA H200": {"bfloat16": 989e12, "float32": 494e12},
    "NVIDIA H100 80GB HBM3": {"bfloat16": 989e12, "float32": 494e12},
    "NVIDIA A100-SXM4-40GB": {"bfloat16": 312e12, "float32": 156e12},
    "NVIDIA A100-SXM4-80GB": {"bfloat16": 312e12, "float32": 156e12},
}
_ROUNDS = 5
_SECONDS = 0.2


def data_sheet(dtype: str) -> float | None:
    """Returns the peak FLOP/s on the data sheet of the first local device, or None if unknown."""
    return DATA_SHEET.get(jax.local_devices()[0].device_kind, {}).get(dtype)


@functools.cache
def measured(dtype: str) -> float:
    """Returns the FLOP/s of a product of square matrices on one device, in the fastest round.

    The matrices have 8,192 rows, or 2,048 on a CPU. The product is compiled with the options of the
    training programs.

    Args:
      dtype: The dtype of the matrices.
    """
    size = 2048 if jax.default_backend() == "cpu" else 8192
    key = jax.random.key(0)
    matrix = jax.random.normal(key, (size, size), jnp.float32).astype(dtype) / size**0.5
    matrix = jax.device_put(matrix, jax.local_devices()[0])

    def repeat(x, count):
        return jax.lax.fori_loop(0, count, lambda _, y: y @ x, x)

    products = compile_for_backend(jax.jit(repeat).lower(matrix, 1))

    def run(count: int) -> None:
        products(matrix, count).block_until_ready()

    run(1)
    count = max(1, round(_SECONDS / harness.timed(run, 1)))
    best = min(harness.timed(run, count) for _ in range(_ROUNDS))
    return 2.0 * size**3 * count / best
