"""Compiles programs with the options that are fastest on each backend."""

import contextlib
import ctypes
import functools
import sys

import jax
import jax.numpy as jnp

# Measured on x86 with AVX-512.
_CPU_OPTIONS = {
    # By default XLA hands single convolutions to YNNPACK, which is 1.2 to 2.2 times slower than
    # Eigen on this suite's networks.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
    # Makes fewer copies of the values that a loop carries.
    "xla_cpu_copy_insertion_use_region_analysis": True,
}

# XLA's default set of commands in CUDA graphs, and the two that it leaves out, CONVOLUTION and
# WHILE. Without these, each convolution splits the step into more graphs, and the host runs the
# loop and waits for the device at every step to read whether another one follows. With both, a
# whole call is one graph.
_CUDA_GRAPH_OPTIONS = {
    "xla_gpu_enable_command_buffer": (
        "FUSION,CUBLAS,CUBLASLT,CUDNN,CUSTOM_CALL,CONDITIONAL,DYNAMIC_SLICE_FUSION,"
        "CONVOLUTION,WHILE"
    ),
}


def compile_for_backend(
    lowered: jax.stages.Lowered, cuda_graph: bool = False
) -> jax.stages.Compiled:
    """Compiles with the fastest options for the backend.

    Versions of jaxlib differ in the options that they know. An unknown option is reported on stderr
    and left out.

    Args:
      lowered: The program.
      cuda_graph: Whether to put convolutions and loops into CUDA graphs on NVIDIA GPUs.
    """
    options = compiler_options(jax.default_backend(), cuda_graph)
    if options and jax.default_backend() == "gpu":
        _load_cudnn()
    while True:
        try:
            program = lowered.compile(compiler_options=options or None)
            break
        except jax.errors.JaxRuntimeError as error:
            unknown = [name for name in options if name in str(error)]
            if not unknown:
                raise
            print(f"compiling without {', '.join(unknown)}: {error}", file=sys.stderr)
            options = {name: value for name, value in options.items() if name not in unknown}
    _give_back_memory()
    return program


def compiler_options(backend: str, cuda_graph: bool = False) -> dict[str, str | bool]:
    """Returns the options for a backend, "cpu", "gpu" or another; see `compile_for_backend`."""
    if backend == "cpu":
        return dict(_CPU_OPTIONS)
    return dict(_CUDA_GRAPH_OPTIONS) if backend == "gpu" and cuda_graph else {}


@functools.cache
def _load_cudnn() -> None:
    """Runs a small convolution on every local device, outside any CUDA graph.

    XLA creates cuDNN's handle for a device when it is first needed, but that is impossible while a
    graph is being captured: "No DNN support for stream". A process that compiles a network has the
    handle from autotuning; one that loads it from the compilation cache does not (jaxlib 0.11.2).
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
    """Returns to the system the memory that the compiler freed; the C library would keep it.

    Does nothing if the C library is not glibc.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
