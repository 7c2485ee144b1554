"""Describes an H100 to XLA on a machine without one, and bounds the time of its kernels.

XLA's compiler needs the CUDA plugin of JAX, but neither a GPU nor NVIDIA's libraries.
"""

from collections.abc import Sequence
from pathlib import Path

import jax
from jax.experimental import topologies

from benchmarks.gpu_program.hlo import Kernel
from cifar_jax.errors import UserError

NAME = "NVIDIA H100 80GB HBM3"
# From the data sheet of the H100 SXM5, for dense matrices. XLA computes float32 products in TF32 by
# default.
BYTES_PER_SECOND = 3.35e12
FLOPS_PER_SECOND = {"bf16": 989e12, "f16": 989e12, "f32": 494e12}
# The shortest time between the starts of two kernels in a CUDA graph. A step of cnn_small, whose
# arrays stay in the cache, takes 113 us with 43 kernels.
SECONDS_PER_KERNEL = 2e-6


def devices(num_gpus: int = 1) -> Sequence[jax.Device]:
    """Returns the devices to compile for; they cannot hold arrays or run programs.

    Args:
      num_gpus: The number of GPUs in one host.

    Raises:
      UserError: If the CUDA plugin is not installed.
    """
    description = (Path(__file__).parent / "h100.txtpb").read_text()
    try:
        topology = topologies.get_topology_desc(
            platform="cuda", topology=f"1x1x{num_gpus}", target_config=description
        )
    except RuntimeError as error:
        raise UserError(
            f"{error}. Run `pip install -r requirements-gpu-program.txt` (Python 3.12 or newer)"
        ) from error
    return topology.devices


def min_seconds(kernel: Kernel) -> float:
    """Returns a lower bound on a kernel's time, from its launch, its bytes and its FLOPs."""
    arithmetic = kernel.flops / FLOPS_PER_SECOND.get(kernel.dtype, FLOPS_PER_SECOND["f32"])
    return max(SECONDS_PER_KERNEL, kernel.num_bytes / BYTES_PER_SECOND, arithmetic)
