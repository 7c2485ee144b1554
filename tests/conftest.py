"""Settings that hold for every test: the CPU with eight virtual devices, and small helpers."""

import os

import pytest

# Before jax is imported: one program for one device and for eight, in the same process.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# LLVM's optimisation takes half of the suite's time and does nothing for shapes as tiny as these.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# Tests compile the same few programs again and again; so do the processes that they start.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    os.path.join(os.path.dirname(__file__), "..", ".pytest_cache", "jax"),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")


@pytest.fixture
def one_torch_thread():
    """Two threads of PyTorch wait for each other without end where another process is busy."""
    torch = pytest.importorskip("torch")
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)
