"""Compiles the training program of a case for the H100, and describes one of its steps."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.gpu_program import h100, hlo, thunks
from benchmarks.harness import Record
from benchmarks.throughput.measure import NUM_IMAGES, random_data_info
from cifar_jax import engine, experiment
from cifar_jax.runtime.compiler import compiler_options
from cifar_jax.runtime.environment import environment


def measure(case: str, model: str, settings: ConfigDict, cuda_graph: bool) -> Record:
    """Compiles the training program of a case and returns its record.

    Args:
      case: The case as given on the command line.
      model: The name of its network.
      settings: Its config.
      cuda_graph: Whether to compile the program with the engine's options for CUDA graphs.
    """
    settings = settings.copy_and_resolve_references()
    if settings.dtype == "auto":
        settings.dtype = "bfloat16"
    lowered = lower(settings, h100.devices())
    with tempfile.TemporaryDirectory() as folder:
        options = compiler_options("gpu", cuda_graph)
        dump = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        program = lowered.compile(compiler_options=options | dump)
        (dumped,) = Path(folder).glob("*.thunk_sequence_after_thunk_passes.txt")
        launches = thunks.count(dumped.read_text())
    batch_size = settings.batch_size
    steps_per_epoch = -(-NUM_IMAGES // batch_size)
    kernels = hlo.loop_kernels(
        program.as_text(),
        {
            f"u8[{NUM_IMAGES},32,32,3]": batch_size * 32 * 32 * 3,
            f"s32[{steps_per_epoch},{batch_size}]": batch_size * 4,
        },
    )
    memory = program.memory_analysis()
    is_convolution = [kernel.kind == "convolution" for kernel in kernels]
    num_bytes = [kernel.num_bytes for kernel in kernels]
    return {
        "case": case,
        "model": model,
        "config": settings.experiment,
        "batch_size": batch_size,
        "dtype": settings.dtype,
        "cuda_graph": cuda_graph,
        "target": h100.NAME,
        "launches_per_call": launches.per_call,
        "launches_per_step": launches.per_step,
        "kernels": launches.kernels_per_step,
        "kernels_by_kind": dict(Counter(kernel.kind for kernel in kernels).most_common()),
        "bytes": sum(num_bytes),
        "bytes_outside_convolutions": int(np.dot(num_bytes, ~np.array(is_convolution))),
        "flops": sum(kernel.flops for kernel in kernels),
        "temporary_bytes": memory.temp_size_in_bytes,
        "min_step_ms": 1e3 * sum(map(h100.min_seconds, kernels)),
        **environment(),
    }


def lower(settings: ConfigDict, devices: Sequence[jax.Device]) -> jax.stages.Lowered:
    """Traces and lowers the training program of a config for the given devices."""
    parts = experiment.make_parts(settings, random_data_info(settings))
    return engine.lower(
        parts.make_train_step,
        parts.init,
        num_examples=NUM_IMAGES,
        batch_size=settings.batch_size,
        mesh=engine.make_mesh(devices),
    )
