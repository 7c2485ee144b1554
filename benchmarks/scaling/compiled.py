"""Compiles training programs for one and for eight H100s on any machine, and logs their properties.

The records have the lower bound on the step time of one GPU (see benchmarks.gpu_program) at each
batch size, and the all-reduces of the program for the eight GPUs of a host.
"""

from benchmarks.gpu_program import h100, hlo
from benchmarks.gpu_program.measure import lower, measure
from benchmarks.harness import Record
from benchmarks.scaling.networks import DTYPE, settings_of
from cifar_jax.runtime.environment import environment

# The GPUs of a host, which NVLink connects.
GPUS_PER_HOST = 8
# The largest number of images per GPU, and that number divided among 8, 64 and 512 GPUs.
BATCH_SIZES = (512, 64, 8, 1)


def one_gpu(network: str, batch_size: int) -> Record:
    """Compiles the training program of a network for one GPU and returns its record."""
    settings = settings_of(network, batch_size)
    record = measure(f"{network}:{batch_size}:{DTYPE}", network, settings, cuda_graph=True)
    return {"network": network, "num_gpus": 1, **record}


def one_host(network: str) -> Record:
    """Compiles the training program of a network for a host and returns its all-reduces."""
    settings = settings_of(network, GPUS_PER_HOST * BATCH_SIZES[1])
    program = lower(settings, h100.devices(GPUS_PER_HOST)).compile()
    return {
        "network": network,
        "num_gpus": GPUS_PER_HOST,
        "config": settings.experiment,
        "batch_size": settings.batch_size,
        "dtype": DTYPE,
        "target": h100.NAME,
        "all_reduces": [reduce._asdict() for reduce in hlo.all_reduces(program.as_text())],
        **environment(),
    }
