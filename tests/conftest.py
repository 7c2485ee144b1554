"""Settings that hold for every test: the CPU with eight virtual devices, and small helpers."""

import os
from pathlib import Path

import pytest

# Before jax is imported: one program for one device and for eight, in the same process.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "8")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# LLVM's optimisation takes half of the suite's time and does nothing for shapes as tiny as these.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
# Tests compile the same few programs again and again; so do the processes that they start.
CACHE = Path(__file__).resolve().parent.parent / ".pytest_cache"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Where Keras writes its settings as it is imported.
os.environ.setdefault("KERAS_HOME", str(CACHE / "keras"))


def pytest_addoption(parser):
    group = parser.getgroup("cifar_jax")
    group.addoption("--kills", type=int, default=2, help="kills of a run, in tests/test_kill.py")
    group.addoption("--shapes", type=int, default=16, help="random convolutions, in tests/ops")
    group.addoption(
        "--source",
        type=Path,
        help="folder of the unpacked CIFAR archives",
    )


def pytest_configure(config):
    if config.getoption("source"):
        import augmenting

        augmenting.source = config.getoption("source")


def pytest_collection_modifyitems(config, items):
    for item in items:
        if item.get_closest_marker("real_images") and not config.getoption("source"):
            item.add_marker(pytest.mark.skip(reason="needs the real archives: --source FOLDER"))


@pytest.fixture
def one_torch_thread():
    """Two threads of PyTorch wait for each other without end where another process is busy."""
    torch = pytest.importorskip("torch")
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)
