"""Compiles a program of a case for the H100, and describes one of its steps."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.gpu_program import h100, hlo, thunks
from benchmarks.gpu_program.programs import NUM_TEST_IMAGES, Program, programs_of
from benchmarks.harness import Record
from benchmarks.throughput.measure import NUM_IMAGES, random_data_info
from cifar_jax import engine, evaluate, experiment
from cifar_jax.experiment import parts as build
from cifar_jax.runtime.compiler import compiler_options
from cifar_jax.runtime.environment import environment


def measure(
    case: str, model: str, settings: ConfigDict, cuda_graph: bool, program: Program | None = None
) -> Record:
    """Compiles a program of a case and returns its record.

    Args:
      case: The case as given on the command line.
      model: The name of its network.
      settings: Its config.
      cuda_graph: Whether to compile the program with the engine's options for CUDA graphs. Programs
        of evaluation have none.
      program: One of `programs_of(settings)`; the first by default.
    """
    settings = settings.copy_and_resolve_references()
    if settings.dtype == "auto":
        settings.dtype = "bfloat16"
    program = program or programs_of(settings)[0]
    cuda_graph = cuda_graph and not program.is_evaluation
    lowered = lower(settings, h100.devices(), program)
    with tempfile.TemporaryDirectory() as folder:
        options = compiler_options("gpu", cuda_graph)
        dump = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        compiled = lowered.compile(compiler_options=options | dump)
        (dumped,) = Path(folder).glob("*.thunk_sequence_after_thunk_passes.txt")
        launches = thunks.count(dumped.read_text())
    num_images = NUM_TEST_IMAGES if program.is_evaluation else NUM_IMAGES
    batch = f"[{program.steps_per_epoch},{program.batch_size}]"
    kernels = hlo.loop_kernels(
        compiled.as_text(),
        {
            f"u8[{num_images},32,32,3]": program.batch_size * 32 * 32 * 3,
            f"s32{batch}": program.batch_size * 4,
            f"f32{batch}": program.batch_size * 4,
        },
    )
    memory = compiled.memory_analysis()
    is_convolution = [kernel.kind == "convolution" for kernel in kernels]
    num_bytes = [kernel.num_bytes for kernel in kernels]
    return {
        "case": case,
        "model": model,
        "config": settings.experiment,
        "program": "evaluation" if program.is_evaluation else "training",
        "image_size": program.image_size,
        "num_steps": program.num_steps,
        "batch_size": program.batch_size,
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


def lower(
    settings: ConfigDict, devices: Sequence[jax.Device], program: Program | None = None
) -> jax.stages.Lowered:
    """Traces and lowers a program of a config for the given devices.

    Args:
      settings: The config.
      devices: The devices, which need not exist.
      program: One of `programs_of(settings)`; the first by default.
    """
    program, mesh = program or programs_of(settings)[0], engine.make_mesh(devices)
    num_steps = program.steps_per_epoch
    parts = experiment.make_parts(settings, random_data_info(settings), steps_per_epoch=num_steps)
    if program.is_evaluation:
        return evaluate.lower(
            parts.eval_step,
            jax.eval_shape(parts.init, np.uint32(0)),
            num_examples=NUM_TEST_IMAGES,
            batch_size=program.batch_size,
            mesh=mesh,
        )
    schedule = build.build_schedule(settings, num_steps)
    return engine.lower(
        parts.later.get(program.first_epoch, parts.make_train_step),
        parts.init,
        num_examples=NUM_IMAGES,
        batch_size=program.batch_size,
        mesh=mesh,
        schedule=build.build_learning_rates(settings, schedule, num_steps),
        drop_last=settings.drop_last,
    )
